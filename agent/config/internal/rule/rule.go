// Package rule says, field by field, what a configuration's values must look like.
//
// It is the one place for that: the reader checks against it, and the published JSON Schema and the reference page
// are generated from it. What enters is a field's path, what leaves is its rule; it checks nothing itself.
//
// A path is the field names from the top of the document, joined by dots; [] stands for any item of a list and * for
// any key of a map: secrets.items[].from.age.file, workload.variables.*.
package rule

// Field is what one field asks of its value. The zero value asks nothing beyond the field's type.
type Field struct {
	// Required fields must be set in some layer, if what they belong to is there at all.
	Required bool
	// Pattern is a regular expression, in the part of the syntax that Go and ECMA-262 share, for the whole value.
	Pattern string
	// Says completes "must be …" for a value that Pattern, Minimum or Maximum refuses.
	Says string
	// Minimum and Maximum bound a number, both inclusive; both 0 for no bounds.
	Minimum, Maximum int
	// File marks the path of a file or directory. A relative one is resolved against the directory of the layer.
	File bool
	// Default is filled into an item that leaves the field out. Fields with one place have theirs in config.Default.
	Default string
	// Unless names the neighbour in whose presence Default is not filled in.
	Unless string
	// Unique refuses equal items in a list.
	Unique bool
	// Lines allows control characters other than NUL: line ends, tabs.
	Lines bool
}

const (
	// A name becomes a file name below /run/secrets, so 255 bytes is Linux's NAME_MAX. A leading dot is kept for the
	// agent's own entries (..data).
	secretName     = `^[A-Za-z0-9_][A-Za-z0-9._-]{0,254}$`
	secretNameSays = "letters, digits, dots, dashes and underscores, beginning with a letter, a digit or an underscore, 255 at most"

	// What systemd takes for a credential: a file name in printable ASCII without a colon.
	credential     = `^\.{0,2}[ \-0-9;-~!-,][ -.0-9;-~]*$`
	credentialSays = "a systemd credential's name: printable ASCII without slash or colon"

	// Steps between single dots; a backslash takes what follows it as it is.
	keyPath     = `^(\\[\s\S]|[^.\\])+(\.(\\[\s\S]|[^.\\])+)*$`
	keyPathSays = "a path such as db.password, without empty steps; a dot inside a key is \\."

	// us-east-1, us-gov-west-1, eusc-de-east-1.
	region     = `^[a-z]{2,}(-[a-z]+)+-[0-9]+$`
	regionSays = "an AWS region such as us-east-1"

	// Relative to the server, so no slash at either end and no empty segment; nothing that means something in a URL.
	vaultPath     = `^[^/?#%\\]+(/[^/?#%\\]+)*$`
	vaultPathSays = "a path such as team/app, without a slash at its ends"

	// Secrets Manager: names up to 512 characters of these, and ARNs.
	secretID     = `^[A-Za-z0-9/_+=.@!:-]+$`
	secretIDSays = "a secret's name or ARN"

	// Parameter Store: hierarchy levels, then :version or :label; and ARNs.
	parameter     = `^[A-Za-z0-9/_.:-]+$`
	parameterSays = "a parameter's name or ARN"

	// The host part of an image reference (distribution/reference): names or an IPv6 address, with an optional port.
	host     = `^([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9a-fA-F:]+\])(:[0-9]{1,5})?$`
	hostSays = "a host name with an optional port, as it stands in image references: no scheme, no path"

	// Compose's own rule for project names.
	project     = `^[a-z0-9][a-z0-9_-]*$`
	projectSays = "lower-case letters, digits, dashes and underscores, beginning with a letter or a digit"

	// The Compose specification's rule for profiles; * means all of them.
	profile     = `^(\*|[A-Za-z0-9][A-Za-z0-9_.-]*)$`
	profileSays = "a profile's name: letters, digits, dots, dashes and underscores"

	// The Compose specification's rule for service names.
	service     = `^[A-Za-z0-9._-]+$`
	serviceSays = "a service's name: letters, digits, dots, dashes and underscores"

	// What Compose substitutes in ${NAME}.
	variable     = `^[A-Za-z_][A-Za-z0-9_]*$`
	variableSays = "a variable's name: letters, digits and underscores, not beginning with a digit"

	// Signals a program can catch; restart is there for the rest. Real-time ones as the engine counts them.
	signal     = `^SIG(HUP|INT|QUIT|USR1|USR2|TERM|ALRM|CONT|PIPE|TSTP|TTIN|TTOU|URG|VTALRM|PROF|WINCH|IO|PWR|RTMIN(\+([1-9]|1[0-5]))?|RTMAX(-([1-9]|1[0-4]))?)$`
	signalSays = "a signal that a program can catch, such as SIGHUP or SIGUSR1"

	fileSays = "the path of a file"

	// A check's name is a segment of a URL's path, a metric's label and a word in a log.
	checkName     = `^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`
	checkNameSays = "letters, digits, and dots, dashes and underscores between them, 63 at most"

	// A host with a port, or the absolute path of a socket; a name's own rules are the resolver's.
	address     = `^(/.+|(\[[0-9a-fA-F:.%a-z]+\]|[^\s/:\[\]]+):[0-9]{1,5})$`
	addressSays = "host:port, or the absolute path of a Unix socket"

	hostPort     = `^(\[[0-9a-fA-F:.%a-z]+\]|[^\s/:\[\]]+):[0-9]{1,5}$`
	hostPortSays = "host:port"

	// An NTP server has a well-known port.
	server     = `^(\[[0-9a-fA-F:.%a-z]+\]|[^\s/:\[\]]+)(:[0-9]{1,5})?$|^[0-9a-fA-F:.]+$`
	serverSays = "a host, or host:port"

	// A host name, an address or, as in libpq, the directory of a socket; of hosts only those with a name or address
	// may have a port.
	postgresHost     = `^(/.+|@.+|[^\s/,:\[\]]+|[0-9a-fA-F:.]+)$`
	postgresHostSays = "a host name, an IP address or the absolute path of a socket's directory"
	postgresEach     = `^(/.+|@.+|(\[[0-9a-fA-F:.%a-z]+\]|[^\s/,:\[\]]+)(:[0-9]{1,5})?)$`
	postgresEachSays = "a host or host:port (an IPv6 address in brackets), or the absolute path of a socket's directory"

	// A token of RFC 9110.
	header     = "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"
	headerSays = "a header's name"

	// systemd.unit(5): a name with a type; the bus wants it whole.
	unit     = `^[A-Za-z0-9:_.@\\-]+\.(service|socket|mount|automount|swap|target|path|timer|slice|scope|device)$`
	unitSays = "a unit's full name, such as nginx.service"

	// Auto Scaling's own rule for LifecycleHookName.
	lifecycleHook     = `^[A-Za-z0-9_/-]{1,255}$`
	lifecycleHookSays = "letters, digits and - _ /, 255 at most"

	// What CloudWatch takes, but for namespaces that begin with AWS/, which are its own; no look-ahead in this syntax.
	namespace     = `^[A-Za-z0-9._/#: -]{1,255}$`
	namespaceSays = "letters, digits, spaces and . _ / # : -, 255 at most"

	// CloudWatch's dimension values are printable ASCII, 1024 at most; these are also words in a log.
	word     = `^[!-9;-~]([ -9;-~]{0,126}[!-9;-~])?$`
	wordSays = "printable ASCII without a colon, 128 characters at most"

	// EventBridge's own rule for EventBusName in PutEvents, with the characters of a bus's name.
	eventBus     = `^(arn:aws[a-z-]*:events:[a-z0-9-]+:[0-9]{12}:event-bus/)?[/._A-Za-z0-9-]{1,256}$`
	eventBusSays = "the name or ARN of an event bus"

	passwordSecretSays = "the name of a secret in secrets.items"
)

// Patterns of the typed scalars, for the schema; their UnmarshalText decides.
const (
	Duration      = `^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))*$`
	ByteSize      = `^\s*[0-9+.].*B\s*$|^\s*0\s*$`
	Percent       = `^[0-9+.].*%$`
	Room          = `^\s*[0-9+.].*(B\s*|%)$`
	ListenAddress = `:[0-9]+$`
	URL           = `^[hH][tT][tT][pP][sS]?://[^/]+`
	EngineAddress = `^unix:///`
)

// Fields has the rule of every field that has one.
var Fields = map[string]Field{
	"apiVersion": {Required: true},
	"kind":       {Required: true},

	"node.color":   {Pattern: word, Says: wordSays},
	"node.release": {Pattern: word, Says: wordSays},

	"secrets.age.identityFile":                 {File: true, Says: fileSays},
	"secrets.age.identityCredential":           {Pattern: credential, Says: credentialSays},
	"secrets.vault.caFile":                     {File: true, Says: fileSays},
	"secrets.vault.tokenFile":                  {File: true, Says: fileSays},
	"secrets.vault.appRole.mount":              {Pattern: vaultPath, Says: vaultPathSays, Default: "approle"},
	"secrets.vault.appRole.roleId":             {Required: true},
	"secrets.vault.appRole.secretIdFile":       {File: true, Says: fileSays},
	"secrets.vault.appRole.secretIdCredential": {Pattern: credential, Says: credentialSays},

	"secrets.items[].name": {Required: true, Pattern: secretName, Says: secretNameSays},
	"secrets.items[].from": {Required: true},

	"secrets.items[].onChange.signal": {Pattern: signal, Says: signalSays},

	"secrets.items[].from.secretsManager.id":     {Required: true, Pattern: secretID, Says: secretIDSays},
	"secrets.items[].from.secretsManager.key":    {Pattern: keyPath, Says: keyPathSays},
	"secrets.items[].from.secretsManager.stage":  {Default: "AWSCURRENT", Unless: "versionId"},
	"secrets.items[].from.secretsManager.region": {Pattern: region, Says: regionSays},
	"secrets.items[].from.ssm.name":              {Required: true, Pattern: parameter, Says: parameterSays},
	"secrets.items[].from.ssm.key":               {Pattern: keyPath, Says: keyPathSays},
	"secrets.items[].from.ssm.region":            {Pattern: region, Says: regionSays},
	"secrets.items[].from.age.file":              {Required: true, File: true, Says: fileSays},
	"secrets.items[].from.age.key":               {Pattern: keyPath, Says: keyPathSays},
	"secrets.items[].from.credential.name":       {Required: true, Pattern: credential, Says: credentialSays},
	"secrets.items[].from.credential.key":        {Pattern: keyPath, Says: keyPathSays},
	"secrets.items[].from.file.path":             {Required: true, File: true, Says: fileSays},
	"secrets.items[].from.file.key":              {Pattern: keyPath, Says: keyPathSays},
	"secrets.items[].from.vault.mount":           {Pattern: vaultPath, Says: vaultPathSays, Default: "secret"},
	"secrets.items[].from.vault.path":            {Required: true, Pattern: vaultPath, Says: vaultPathSays},
	"secrets.items[].from.vault.key":             {Pattern: keyPath, Says: keyPathSays},
	// Vault counts versions from 1 and keeps at most a 32-bit number of them; 0 asks for the newest.
	"secrets.items[].from.vault.version": {Minimum: 0, Maximum: 1<<31 - 1, Says: "0 for the newest version, or a version's number"},

	"registries[].host":           {Required: true, Pattern: host, Says: hostSays},
	"registries[].ecr.region":     {Pattern: region, Says: regionSays},
	"registries[].passwordSecret": {Pattern: secretName, Says: passwordSecretSays},

	"workload.project":       {Required: true, Pattern: project, Says: projectSays},
	"workload.files":         {Required: true, Unique: true},
	"workload.files[]":       {File: true, Says: fileSays},
	"workload.profiles":      {Unique: true},
	"workload.profiles[]":    {Pattern: profile, Says: profileSays},
	"workload.variables":     {Pattern: variable, Says: variableSays}, // a map's pattern is that of its keys
	"workload.variables.*":   {Lines: true},
	"workload.pull.archives": {File: true, Says: "the path of a directory"},
	// 32 is far beyond what saves time: a disk and a network are full long before.
	"workload.pull.parallel": {Minimum: 1, Maximum: 32, Says: "between 1 and 32"},
	// More than a thousand images of one repository is not clean-up.
	"workload.cleanUp.keep": {Minimum: 0, Maximum: 1000, Says: "between 0 and 1000"},

	// A hundred tries, ten minutes apart, are most of a day.
	"workload.reconcile.tries":   {Minimum: 0, Maximum: 100, Says: "between 0 and 100"},
	"workload.reconcile.leave":   {Unique: true},
	"workload.reconcile.leave[]": {Pattern: service, Says: serviceSays},

	"health.checks[].name":     {Required: true, Pattern: checkName, Says: checkNameSays},
	"health.checks[].scope":    {Default: "node"},
	"health.checks[].gate":     {Default: "auto"},
	"health.checks[].interval": {Default: "5s"},
	"health.checks[].timeout":  {Default: "3s"}, // PQping's own
	// HAProxy's defaults; a hundred at the least interval is ten seconds.
	"health.checks[].rise": {Default: "2", Minimum: 1, Maximum: 100, Says: "between 1 and 100"},
	"health.checks[].fall": {Default: "3", Minimum: 1, Maximum: 100, Says: "between 1 and 100"},

	"health.checks[].postgres.host":                 {Pattern: postgresHost, Says: postgresHostSays},
	"health.checks[].postgres.port":                 {Default: "5432", Unless: "hosts", Minimum: 1, Maximum: 65535, Says: "between 1 and 65535"},
	"health.checks[].postgres.hosts":                {Unique: true},
	"health.checks[].postgres.hosts[]":              {Pattern: postgresEach, Says: postgresEachSays},
	"health.checks[].postgres.tls.mode":             {Default: "prefer"},
	"health.checks[].postgres.tls.negotiation":      {Default: "postgres"},
	"health.checks[].postgres.tls.caFile":           {File: true, Says: fileSays},
	"health.checks[].postgres.tls.certificateFile":  {File: true, Says: fileSays},
	"health.checks[].postgres.tls.keyFile":          {File: true, Says: fileSays},
	"health.checks[].postgres.login.passwordSecret": {Pattern: secretName, Says: passwordSecretSays},
	"health.checks[].postgres.login.query":          {Lines: true},

	"health.checks[].redis.address":                 {Pattern: address, Says: addressSays},
	"health.checks[].redis.addresses":               {Unique: true},
	"health.checks[].redis.addresses[]":             {Pattern: address, Says: addressSays},
	"health.checks[].redis.passwordSecret":          {Pattern: secretName, Says: passwordSecretSays},
	"health.checks[].redis.tls.caFile":              {File: true, Says: fileSays},
	"health.checks[].redis.tls.certificateFile":     {File: true, Says: fileSays},
	"health.checks[].redis.tls.keyFile":             {File: true, Says: fileSays},
	"health.checks[].redis.sentinel.primary":        {Required: true},
	"health.checks[].redis.sentinel.passwordSecret": {Pattern: secretName, Says: passwordSecretSays},

	"health.checks[].http.url":                 {Required: true},
	"health.checks[].http.statuses":            {Unique: true},
	"health.checks[].http.statuses[]":          {Minimum: 100, Maximum: 599, Says: "a status code between 100 and 599"},
	"health.checks[].http.headers":             {Pattern: header, Says: headerSays},
	"health.checks[].http.secretHeaders":       {Pattern: header, Says: headerSays},
	"health.checks[].http.secretHeaders.*":     {Required: true, Pattern: secretName, Says: passwordSecretSays},
	"health.checks[].http.tls.caFile":          {File: true, Says: fileSays},
	"health.checks[].http.tls.certificateFile": {File: true, Says: fileSays},
	"health.checks[].http.tls.keyFile":         {File: true, Says: fileSays},

	"health.checks[].tcp.address":             {Required: true, Pattern: address, Says: addressSays},
	"health.checks[].tcp.send":                {Lines: true},
	"health.checks[].tcp.expect":              {Lines: true},
	"health.checks[].tcp.tls.caFile":          {File: true, Says: fileSays},
	"health.checks[].tcp.tls.certificateFile": {File: true, Says: fileSays},
	"health.checks[].tcp.tls.keyFile":         {File: true, Says: fileSays},

	"health.checks[].tls.address":         {Required: true, Pattern: hostPort, Says: hostPortSays},
	"health.checks[].tls.caFile":          {File: true, Says: fileSays},
	"health.checks[].tls.certificateFile": {File: true, Says: fileSays},
	"health.checks[].tls.keyFile":         {File: true, Says: fileSays},
	// Where a default is filled in here, it is the probe's own, which says why.
	"health.checks[].tls.warnBefore": {Default: "336h"},

	"health.checks[].container.service":     {Required: true, Pattern: service, Says: serviceSays},
	"health.checks[].container.replicas":    {Default: "1", Minimum: 1, Maximum: 1000, Says: "between 1 and 1000"},
	"health.checks[].container.maxRestarts": {Default: "3", Minimum: 1, Maximum: 1000, Says: "between 1 and 1000"},

	"health.checks[].disk.path":       {Required: true, File: true, Says: "the path of a file or directory"},
	"health.checks[].disk.warn":       {Default: "10%"},
	"health.checks[].disk.fail":       {Default: "5%"},
	"health.checks[].disk.warnInodes": {Default: "5%"},
	"health.checks[].disk.failInodes": {Default: "2.5%"},

	"health.checks[].file.path": {Required: true, File: true, Says: fileSays},

	"health.checks[].command.argv":        {Required: true},
	"health.checks[].command.dir":         {File: true, Says: "the path of a directory"},
	"health.checks[].command.environment": {Pattern: variable, Says: variableSays},

	"health.checks[].systemd.unit": {Required: true, Pattern: unit, Says: unitSays},

	"health.checks[].clock.server": {Pattern: server, Says: serverSays},
	"health.checks[].clock.warn":   {Default: "500ms"},
	"health.checks[].clock.fail":   {Default: "1m"},

	"drain.order":   {Unique: true},
	"drain.order[]": {Pattern: service, Says: serviceSays},

	"drain.hooks[].name":    {Required: true, Pattern: checkName, Says: checkNameSays},
	"drain.hooks[].argv":    {Required: true},
	"drain.hooks[].timeout": {Default: "30s"},

	"lifecycle.launchHook":    {Pattern: lifecycleHook, Says: lifecycleHookSays},
	"lifecycle.terminateHook": {Pattern: lifecycleHook, Says: lifecycleHookSays},

	"cloudWatch.namespace": {Required: true, Pattern: namespace, Says: namespaceSays},
	"cloudWatch.region":    {Pattern: region, Says: regionSays},

	"notify.webhook.url":           {Required: true},
	"notify.webhook.tokenSecret":   {Pattern: secretName, Says: passwordSecretSays},
	"notify.webhook.signingSecret": {Pattern: secretName, Says: passwordSecretSays},
	// The least that Standard Webhooks recommends.
	"notify.webhook.timeout": {Default: "15s"},
	"notify.webhook.caFile":  {File: true, Says: fileSays},

	"notify.eventBridge.bus":    {Required: true, Pattern: eventBus, Says: eventBusSays},
	"notify.eventBridge.region": {Pattern: region, Says: regionSays},
}

// Holders maps a field name under which people paste a secret's value to what they should write instead, by the
// section that they are in. Names are in lower case, without dashes and underscores.
var Holders = map[string]map[string]string{
	"registries[]": {
		"password": putIntoSecret, "passwd": putIntoSecret, "pass": putIntoSecret, "token": putIntoSecret,
		"secret": putIntoSecret, "auth": putIntoSecret, "identitytoken": putIntoSecret, "apikey": putIntoSecret,
	},
	"secrets.items[]": {
		"value": sayWhere, "data": sayWhere, "content": sayWhere, "password": sayWhere, "secret": sayWhere,
		"token": sayWhere, "plaintext": sayWhere, "literal": sayWhere, "key": sayWhere,
	},
	"secrets.items[].from": {
		"value": sayWhere, "data": sayWhere, "content": sayWhere, "password": sayWhere, "secret": sayWhere,
		"token": sayWhere, "plaintext": sayWhere, "literal": sayWhere, "env": sayWhere, "environment": sayWhere,
	},
	"health.checks[].postgres": {"password": putIntoLogin, "passwd": putIntoLogin, "passwordsecret": putIntoLogin},
	"health.checks[].postgres.login": {
		"password": putIntoSecret, "passwd": putIntoSecret, "pass": putIntoSecret, "secret": putIntoSecret,
	},
	"health.checks[].redis": {
		"password": putIntoSecret, "passwd": putIntoSecret, "pass": putIntoSecret, "auth": putIntoSecret, "secret": putIntoSecret,
	},
	"health.checks[].redis.sentinel": {
		"password": putIntoSecret, "passwd": putIntoSecret, "pass": putIntoSecret, "auth": putIntoSecret, "secret": putIntoSecret,
	},
	"notify.webhook": {
		"token": putIntoToken, "secret": putIntoSigning, "password": putIntoToken, "bearer": putIntoToken, "authorization": putIntoToken,
		"key": putIntoSigning, "signingkey": putIntoSigning, "hmac": putIntoSigning,
	},
	"secrets.vault":         {"token": "write the token to a file and name the file with tokenFile"},
	"secrets.vault.appRole": {"secretid": nameSecretID, "secret": nameSecretID},
	"secrets.age":           {"identity": nameIdentity, "key": nameIdentity, "privatekey": nameIdentity, "passphrase": nameIdentity},
}

const (
	putIntoSecret  = "put it in a secret and name it with passwordSecret"
	putIntoToken   = "put it in a secret and name it with tokenSecret"
	putIntoSigning = "put it in a secret and name it with signingSecret"
	putIntoLogin   = "put it in a secret and name it with login.passwordSecret"
	sayWhere       = "a configuration never holds a secret: say with `from` where it is kept"
	nameSecretID   = "write the secret id to a file and name the file with secretIdFile"
	nameIdentity   = "write the identity to a file and name the file with identityFile"
)
