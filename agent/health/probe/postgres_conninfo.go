package probe

import (
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// PostgresSettings are libpq's connection parameters, by keyword. A keyword that is there with an empty value isn't the
// same as one that is absent: an empty sslmode is wrong.
type PostgresSettings map[string]string

// keyword is one of libpq's parameters (PQconninfoOptions in fe-connect.c).
type keyword struct {
	variable string // the environment variable that gives its default
	standard string // the default after that, "" for none
	effect   effect
}

// effect is what a parameter does to a ping.
type effect int

const (
	used   effect = iota
	idle          // can't change PQping's answer: it concerns what comes after it, or how long it takes
	beyond        // can change it, and isn't supported
)

// keywords is the union of libpq 15 to 18. Those that an older libpq doesn't know it refuses.
var keywords = map[string]keyword{
	"service":                   {variable: "PGSERVICE", effect: beyond},
	"servicefile":               {variable: "PGSERVICEFILE", effect: idle},
	"user":                      {variable: "PGUSER"},
	"password":                  {variable: "PGPASSWORD", effect: idle},
	"passfile":                  {variable: "PGPASSFILE", effect: idle},
	"channel_binding":           {variable: "PGCHANNELBINDING"},
	"connect_timeout":           {variable: "PGCONNECT_TIMEOUT"},
	"dbname":                    {variable: "PGDATABASE"},
	"host":                      {variable: "PGHOST"},
	"hostaddr":                  {variable: "PGHOSTADDR"},
	"port":                      {variable: "PGPORT", standard: postgresPort},
	"client_encoding":           {variable: "PGCLIENTENCODING", effect: idle},
	"options":                   {variable: "PGOPTIONS", effect: idle},
	"application_name":          {variable: "PGAPPNAME"},
	"fallback_application_name": {},
	"keepalives":                {effect: idle},
	"keepalives_idle":           {effect: idle},
	"keepalives_interval":       {effect: idle},
	"keepalives_count":          {effect: idle},
	"tcp_user_timeout":          {effect: idle},
	"sslmode":                   {variable: "PGSSLMODE"},
	"sslnegotiation":            {variable: "PGSSLNEGOTIATION"},
	"sslcompression":            {variable: "PGSSLCOMPRESSION", effect: idle},
	"sslcert":                   {variable: "PGSSLCERT"},
	"sslkey":                    {variable: "PGSSLKEY"},
	"sslcertmode":               {variable: "PGSSLCERTMODE", effect: beyond},
	"sslpassword":               {effect: beyond},
	"sslrootcert":               {variable: "PGSSLROOTCERT"},
	"sslcrl":                    {variable: "PGSSLCRL", effect: beyond},
	"sslcrldir":                 {variable: "PGSSLCRLDIR", effect: beyond},
	"sslsni":                    {variable: "PGSSLSNI"},
	"sslkeylogfile":             {effect: idle},
	"requirepeer":               {variable: "PGREQUIREPEER", effect: beyond},
	"require_auth":              {variable: "PGREQUIREAUTH", effect: idle},
	"min_protocol_version":      {variable: "PGMINPROTOCOLVERSION", effect: beyond},
	"max_protocol_version":      {variable: "PGMAXPROTOCOLVERSION", effect: beyond},
	"ssl_min_protocol_version":  {variable: "PGSSLMINPROTOCOLVERSION"},
	"ssl_max_protocol_version":  {variable: "PGSSLMAXPROTOCOLVERSION"},
	"gssencmode":                {variable: "PGGSSENCMODE"},
	"gssdelegation":             {variable: "PGGSSDELEGATION", effect: idle},
	"krbsrvname":                {variable: "PGKRBSRVNAME", effect: idle},
	"gsslib":                    {variable: "PGGSSLIB", effect: idle},
	"replication":               {effect: idle},
	"target_session_attrs":      {variable: "PGTARGETSESSIONATTRS"},
	"load_balance_hosts":        {variable: "PGLOADBALANCEHOSTS", effect: idle},
	"scram_client_key":          {effect: idle},
	"scram_server_key":          {effect: idle},
	"oauth_issuer":              {effect: idle},
	"oauth_client_id":           {effect: idle},
	"oauth_client_secret":       {effect: idle},
	"oauth_scope":               {effect: idle},
}

// IsPostgresConninfo tells a connection string from the name of a database (recognized_connection_string).
func IsPostgresConninfo(text string) bool {
	return uriRest(text) != nil || strings.Contains(text, "=")
}

// uriRest returns what follows the scheme of a connection URI, nil where text is none.
func uriRest(text string) *string {
	for _, scheme := range []string{"postgresql://", "postgres://"} {
		if rest, ok := strings.CutPrefix(text, scheme); ok {
			return &rest
		}
	}
	return nil
}

// ParsePostgresConninfo reads a connection string, "host=db port=5432" or "postgresql://db:5432/", as libpq's
// PQconninfoParse does: no defaults, and values are not checked. Its errors name keywords at most: a value may be a password.
func ParsePostgresConninfo(text string) (PostgresSettings, error) {
	settings := PostgresSettings{}
	if rest := uriRest(text); rest != nil {
		return settings, settings.parseURI(*rest)
	}
	return settings, settings.parsePairs(text)
}

// Set stores one parameter, replacing an earlier one.
func (s PostgresSettings) Set(name, value string) error {
	if name == "requiressl" { // what sslmode was called before 2003 is still taken
		name = "sslmode"
		if strings.HasPrefix(value, "1") {
			value = tlsRequire
		} else {
			value = tlsPrefer
		}
	}
	if _, ok := keywords[name]; !ok {
		return fmt.Errorf("invalid connection option %q", fromServer(name))
	}
	s[name] = value
	return nil
}

// spaces are those of C's isspace.
const spaces = " \t\n\v\f\r"

// parsePairs reads keyword = value, the value perhaps in single quotes, with backslashes before quotes and backslashes.
func (s PostgresSettings) parsePairs(text string) error {
	for text = strings.TrimLeft(text, spaces); text != ""; text = strings.TrimLeft(text, spaces) {
		end := strings.IndexAny(text, "="+spaces)
		if end < 0 {
			return errors.New(`missing "=" in the connection string`)
		}
		name := text[:end]
		rest, ok := strings.CutPrefix(strings.TrimLeft(text[end:], spaces), "=")
		if !ok {
			return errors.New(`missing "=" in the connection string`)
		}
		value, rest, err := cutValue(strings.TrimLeft(rest, spaces))
		if err != nil {
			return err
		}
		if err := s.Set(name, value); err != nil {
			return err
		}
		text = rest
	}
	return nil
}

// cutValue takes the value that text begins with.
func cutValue(text string) (value, rest string, err error) {
	ends := spaces
	text, quoted := strings.CutPrefix(text, "'")
	if quoted {
		ends = "'"
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case strings.IndexByte(ends, c) >= 0:
			return b.String(), text[i+1:], nil
		case c == '\\':
			if i++; i < len(text) {
				b.WriteByte(text[i])
			}
		default:
			b.WriteByte(c)
		}
	}
	if quoted {
		return "", "", errors.New("unterminated quoted string in the connection string")
	}
	return b.String(), "", nil
}

// parseURI reads [user[:password]@][host[:port],…][/dbname][?keyword=value&…]; net/url can't, since there may be several
// hosts and a host may be a percent-encoded directory.
func (s PostgresSettings) parseURI(text string) error {
	if at := strings.IndexAny(text, "@/"); at >= 0 && text[at] == '@' {
		name, password, _ := strings.Cut(text[:at], ":")
		if err := errors.Join(s.setDecoded("user", name), s.setDecoded("password", password)); err != nil {
			return err
		}
		text = text[at+1:]
	}
	var hosts, ports []string
	for more := true; more; {
		host, port, rest, err := cutHost(text)
		if err != nil {
			return err
		}
		hosts, ports = append(hosts, host), append(ports, port)
		text, more = strings.CutPrefix(rest, ",")
	}
	if err := errors.Join(
		s.setDecoded("host", strings.Join(hosts, ",")),
		s.setDecoded("port", strings.Join(ports, ",")),
	); err != nil {
		return err
	}
	path, query, _ := strings.Cut(text, "?")
	if err := s.setDecoded("dbname", strings.TrimPrefix(path, "/")); err != nil {
		return err
	}
	if query == "" {
		return nil
	}
	for pair := range strings.SplitSeq(strings.TrimSuffix(query, "&"), "&") {
		if err := s.setPair(pair); err != nil {
			return err
		}
	}
	return nil
}

// cutHost takes one host[:port]; an IPv6 address stands in brackets.
func cutHost(text string) (host, port, rest string, err error) {
	if after, ok := strings.CutPrefix(text, "["); ok {
		host, rest, ok = strings.Cut(after, "]")
		if !ok || host == "" {
			return "", "", "", errors.New("an IPv6 address in the connection URI needs brackets around it")
		}
		if rest != "" && !strings.Contains(":/?,", rest[:1]) {
			return "", "", "", errors.New(`unexpected character after "]" in the connection URI`)
		}
	} else {
		end := indexAnyOrEnd(text, ":/?,")
		host, rest = text[:end], text[end:]
	}
	if after, ok := strings.CutPrefix(rest, ":"); ok {
		end := indexAnyOrEnd(after, "/?,")
		port, rest = after[:end], after[end:]
	}
	return host, port, rest, nil
}

func indexAnyOrEnd(text, chars string) int {
	if i := strings.IndexAny(text, chars); i >= 0 {
		return i
	}
	return len(text)
}

// setPair stores one keyword=value of a URI's query.
func (s PostgresSettings) setPair(pair string) error {
	name, value, ok := strings.Cut(pair, "=")
	if !ok || strings.Contains(value, "=") {
		return errors.New("a parameter of the connection URI's query isn't keyword=value")
	}
	name, err := decode(name)
	if err != nil {
		return err
	}
	value, err = decode(value)
	if err != nil {
		return err
	}
	if name == "ssl" && value == "true" { // as JDBC writes it
		name, value = "sslmode", tlsRequire
	}
	return s.Set(name, value)
}

// setDecoded stores a part of a URI; an empty one leaves the default.
func (s PostgresSettings) setDecoded(name, value string) error {
	if value == "" {
		return nil
	}
	value, err := decode(value)
	if err != nil {
		return err
	}
	return s.Set(name, value)
}

func decode(text string) (string, error) {
	text, err := url.PathUnescape(text)
	if err != nil || strings.Contains(text, "\x00") {
		return "", errors.New("invalid percent-encoding in the connection URI")
	}
	return text, nil
}

// AddDefaults fills in what isn't there from the environment, then from libpq's own defaults (conninfo_add_defaults).
// The home directory's files are named where they exist. lookup is os.LookupEnv.
func (s PostgresSettings) AddDefaults(lookup func(string) (string, bool)) {
	for name, keyword := range keywords {
		if _, ok := s[name]; ok {
			continue
		}
		if value, ok := lookup(keyword.variable); keyword.variable != "" && ok {
			s[name] = value
		} else if keyword.standard != "" {
			s[name] = keyword.standard
		}
	}
	if _, ok := s["sslmode"]; !ok {
		if value, _ := lookup("PGREQUIRESSL"); strings.HasPrefix(value, "1") {
			s["sslmode"] = tlsRequire
		}
	}
	if s["user"] == "" {
		// From the user database alone, as libpq: $USER may be somebody else's.
		if current, err := user.LookupId(strconv.Itoa(os.Geteuid())); err == nil {
			s["user"] = current.Username
		}
	}
	home, ok := lookup("HOME")
	if !ok {
		return
	}
	for name, file := range map[string]string{"sslrootcert": "root.crt", "sslcert": "postgresql.crt", "sslkey": "postgresql.key"} {
		if s[name] == "" {
			s[name] = filepath.Join(home, ".postgresql", file)
		}
	}
}

// Postgres makes a probe of the settings. It refuses what libpq refuses before it tries anything (connectOptions2), and
// what would change the answer but isn't supported. The timeout is the caller's.
func (s PostgresSettings) Postgres() (*Postgres, error) {
	for name := range s {
		if keywords[name].effect == beyond && s[name] != "" {
			return nil, fmt.Errorf("%s isn't supported here: use pg_isready", name)
		}
	}
	hosts, err := s.hosts()
	if err != nil {
		return nil, err
	}
	if s["user"] == "" {
		return nil, fmt.Errorf("user id %d has no name here: name a user", os.Geteuid())
	}
	for _, choice := range []struct {
		name   string
		values []string
	}{
		{"sslmode", []string{tlsDisable, tlsAllow, tlsPrefer, tlsRequire, tlsVerifyCA, tlsVerifyFull}},
		{"sslnegotiation", []string{"postgres", "direct"}},
		{"channel_binding", []string{"disable", "prefer", "require"}},
		{"gssencmode", []string{"disable", "prefer"}}, // without GSSAPI, libpq refuses "require" as well
		{"target_session_attrs", []string{"any", "read-write", "read-only", "primary", "standby", "prefer-standby"}},
	} {
		if err := s.oneOf(choice.name, choice.values); err != nil {
			return nil, err
		}
	}
	lowest, err := s.version("ssl_min_protocol_version")
	if err != nil {
		return nil, err
	}
	highest, err := s.version("ssl_max_protocol_version")
	if err != nil {
		return nil, err
	}
	p := &Postgres{
		Hosts:           hosts,
		User:            s["user"],
		Database:        s["dbname"],
		ApplicationName: s["application_name"],
		TLS: PostgresTLS{
			Mode:        s["sslmode"],
			Negotiation: s["sslnegotiation"],
			RootFile:    s["sslrootcert"],
			CertFile:    s["sslcert"],
			KeyFile:     s["sslkey"],
			MinVersion:  lowest,
			MaxVersion:  highest,
			HideName:    s["sslsni"] != "" && !strings.HasPrefix(s["sslsni"], "1"),
		},
	}
	if p.ApplicationName == "" {
		p.ApplicationName = s["fallback_application_name"]
	}
	return p, p.TLS.validate()
}

// Clone returns a copy.
func (s PostgresSettings) Clone() PostgresSettings { return maps.Clone(s) }

// Target names the server as pg_isready prints it: the lists as they were given.
func (s PostgresSettings) Target() string {
	host, ok := s["hostaddr"]
	if !ok {
		host, ok = s["host"]
	}
	if !ok {
		host = postgresSocketDir
	}
	return host + ":" + s["port"]
}

func (s PostgresSettings) oneOf(name string, values []string) error {
	value, ok := s[name]
	if !ok {
		return nil
	}
	for _, allowed := range values {
		if value == allowed {
			return nil
		}
	}
	return fmt.Errorf("%s %q is unknown: use one of %s", name, value, strings.Join(values, ", "))
}

// hosts splits host, hostaddr and port into one entry a server.
func (s PostgresSettings) hosts() ([]PostgresHost, error) {
	names, addresses, ports := list(s["host"]), list(s["hostaddr"]), list(s["port"])
	count := max(len(addresses), 1)
	if len(addresses) == 0 {
		count = max(len(names), 1)
	}
	if len(names) > 0 && len(names) != count {
		return nil, fmt.Errorf("could not match %d host names to %d hostaddr values", len(names), count)
	}
	if len(ports) > 1 && len(ports) != count {
		return nil, fmt.Errorf("could not match %d port numbers to %d hosts", len(ports), count)
	}
	hosts := make([]PostgresHost, count)
	for i := range hosts {
		hosts[i] = PostgresHost{Name: at(names, i), Address: at(addresses, i), Port: at(ports, i)}
		if len(ports) == 1 {
			hosts[i].Port = ports[0]
		}
	}
	return hosts, nil
}

func list(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, ",")
}

func at(list []string, i int) string {
	if i < len(list) {
		return list[i]
	}
	return ""
}

// version reads a version of TLS; those below 1.2 are left to pg_isready, as crypto/tls warns of them.
func (s PostgresSettings) version(name string) (uint16, error) {
	switch strings.ToLower(s[name]) {
	case "", "tlsv1", "tlsv1.1":
		return 0, nil
	case "tlsv1.2":
		return tls.VersionTLS12, nil
	case "tlsv1.3":
		return tls.VersionTLS13, nil
	}
	return 0, fmt.Errorf("%s %q is unknown: use TLSv1.2 or TLSv1.3", name, s[name])
}
