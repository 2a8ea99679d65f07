package config

// Scope says whose fitness a check tells of.
type Scope string

const (
	ScopeNode   Scope = "node"   // this machine's alone
	ScopeShared Scope = "shared" // that of something other nodes use as well: a database, a cache
)

// Gate says whether a check can keep the node from serving.
type Gate string

const (
	GateAuto   Gate = "auto"   // a node's own check always, a shared one until the node was ready once
	GateAlways Gate = "always" // while it is down, the node fails
	GateNever  Gate = "never"  // while it is down, the node warns
)

// Check is one thing that is asked again and again, and what its answers mean for the node. Exactly one kind is set.
type Check struct {
	// Name by which status, metrics and /readyz/<name> call it: letters, digits, dots, dashes and underscores.
	Name string `yaml:"name"`
	// node for what belongs to this machine, shared for what other nodes use as well (a database, a cache).
	Scope Scope `yaml:"scope"`
	// When the check keeps the node from serving. auto: a node's own check always; a shared one until the node was ready once, then it warns. always: whenever it is down. never: it only warns.
	Gate Gate `yaml:"gate"`
	// Time from the start of one probe to the start of the next, spread by up to a tenth either way; at least 100ms.
	Interval Duration `yaml:"interval"`
	// How long one probe may take.
	Timeout Duration `yaml:"timeout"`
	// How many good answers in a row bring the check up, 1 to 100.
	Rise int `yaml:"rise"`
	// How many bad answers in a row bring the check down, 1 to 100.
	Fall int `yaml:"fall"`

	// A PostgreSQL server accepts connections, by pg_isready's own rules; with a login, it answers a query as well.
	Postgres *PostgresCheck `yaml:"postgres"`
	// A Redis or Valkey server, cluster or Sentinel set answers PING.
	Redis *RedisCheck `yaml:"redis"`
	// An HTTP server answers as it should.
	HTTP *HTTPCheck `yaml:"http"`
	// A TCP server or Unix socket accepts connections.
	TCP *TCPCheck `yaml:"tcp"`
	// A server's certificate is trusted, carries the right name and lasts long enough.
	TLS *TLSCheck `yaml:"tls"`
	// The containers of a Compose service run, are healthy and aren't restarted again and again.
	Container *ContainerCheck `yaml:"container"`
	// A file system has room.
	Disk *DiskCheck `yaml:"disk"`
	// A file exists and is young enough, such as the stamp of a backup.
	File *FileCheck `yaml:"file"`
	// A program exits with 0.
	Command *CommandCheck `yaml:"command"`
	// A systemd unit is active.
	Systemd *SystemdCheck `yaml:"systemd"`
	// The machine's clock is in step.
	Clock *ClockCheck `yaml:"clock"`
}

// ClientTLS is how to speak TLS with a server.
type ClientTLS struct {
	// PEM file of the authorities to trust; empty for the system's.
	CAFile string `yaml:"caFile"`
	// Name that the certificate must carry, where it is not the address's host.
	ServerName string `yaml:"serverName"`
	// PEM file of the client's own certificate, for servers that ask for one.
	CertificateFile string `yaml:"certificateFile"`
	// PEM file of that certificate's key.
	KeyFile string `yaml:"keyFile"`
}

// PostgresCheck asks a PostgreSQL server.
type PostgresCheck struct {
	// DNS name, IP address, or directory of the server's socket (with a leading slash). Empty for /var/run/postgresql.
	Host string `yaml:"host"`
	// Port. Default 5432.
	Port int `yaml:"port"`
	// Several servers, each host or host:port, tried in this order until one decides; instead of host and port.
	Hosts []string `yaml:"hosts"`
	// User name. Without a login it need not be a real one; the server may log one that it doesn't know.
	User string `yaml:"user"`
	// Database. Empty for the one that has the user's name.
	Database string `yaml:"database"`
	// How the connection is encrypted.
	TLS PostgresTLS `yaml:"tls"`
	// Log in as well, and run a query where there is one.
	Login *PostgresLogin `yaml:"login"`
}

// PostgresTLSMode is libpq's sslmode.
type PostgresTLSMode string

// PostgresNegotiation is libpq's sslnegotiation.
type PostgresNegotiation string

// PostgresTLS says how connections to PostgreSQL are encrypted.
type PostgresTLS struct {
	// As libpq's sslmode. verify-ca and verify-full hold the certificate against caFile.
	Mode PostgresTLSMode `yaml:"mode"`
	// As libpq's sslnegotiation: postgres asks for TLS first, direct (PostgreSQL 17, and mode require or stricter) begins with it.
	Negotiation PostgresNegotiation `yaml:"negotiation"`
	// PEM file of the authorities to trust. Empty with verify-full: the system's.
	CAFile string `yaml:"caFile"`
	// PEM file of the client's own certificate, for servers that ask for one.
	CertificateFile string `yaml:"certificateFile"`
	// PEM file of that certificate's key.
	KeyFile string `yaml:"keyFile"`
}

// PostgresLogin logs in to PostgreSQL and asks one question.
type PostgresLogin struct {
	// Name of the secret that holds the password; empty for a login without one.
	PasswordSecret string `yaml:"passwordSecret"`
	// One SQL statement that returns one value, run in a read-only transaction. Empty: log in only.
	Query string `yaml:"query"`
	// What the value must be, as text: t for a true boolean. Empty accepts every value but NULL.
	Expect string `yaml:"expect"`
}

// RedisCheck asks a Redis or Valkey server.
type RedisCheck struct {
	// host:port, or the absolute path of a Unix socket.
	Address string `yaml:"address"`
	// Several nodes of a cluster, or several Sentinels, of which any one that answers is enough; instead of address.
	Addresses []string `yaml:"addresses"`
	// ACL user; empty for the default user.
	Username string `yaml:"username"`
	// Name of the secret that holds the password.
	PasswordSecret string `yaml:"passwordSecret"`
	// Speak TLS.
	TLS *ClientTLS `yaml:"tls"`
	// Whether the server must take writes: a read-only replica fails.
	Primary bool `yaml:"primary"`
	// Whether the server is a node of a cluster, whose state as a whole is then looked at.
	Cluster bool `yaml:"cluster"`
	// The addresses are those of Sentinels, which are asked for the primary.
	Sentinel *RedisSentinel `yaml:"sentinel"`
}

// RedisSentinel says how to ask Sentinels.
type RedisSentinel struct {
	// Name under which the Sentinels watch the primary, such as mymaster.
	Primary string `yaml:"primary"`
	// ACL user of the Sentinels; empty for the default user.
	Username string `yaml:"username"`
	// Name of the secret that holds the Sentinels' password.
	PasswordSecret string `yaml:"passwordSecret"`
}

// HTTPCheck asks an HTTP server with GET. Redirects aren't followed.
type HTTPCheck struct {
	// Where to ask.
	URL URL `yaml:"url"`
	// Status codes that are good. Empty: 200 to 299.
	Statuses []int `yaml:"statuses"`
	// Regular expression (RE2) that must match within the first MiB of the body.
	Match string `yaml:"match"`
	// Headers to send. Never a secret.
	Headers map[string]string `yaml:"headers"`
	// Headers whose values are secrets: by header, the secret's name.
	SecretHeaders map[string]string `yaml:"secretHeaders"`
	// How to speak TLS, for https.
	TLS *ClientTLS `yaml:"tls"`
}

// TCPCheck connects to a server.
type TCPCheck struct {
	// host:port, or the absolute path of a Unix socket.
	Address string `yaml:"address"`
	// Speak TLS.
	TLS *ClientTLS `yaml:"tls"`
	// What to send once connected. Never a secret.
	Send string `yaml:"send"`
	// What must occur in the first 4 KiB of the answer.
	Expect string `yaml:"expect"`
}

// TLSCheck looks at a server's certificate.
type TLSCheck struct {
	// host:port.
	Address string `yaml:"address"`
	// PEM file of the authorities to trust; empty for the system's.
	CAFile string `yaml:"caFile"`
	// Name that the certificate must carry, where it is not the address's host.
	ServerName string `yaml:"serverName"`
	// PEM file of the client's own certificate, for servers that ask for one.
	CertificateFile string `yaml:"certificateFile"`
	// PEM file of that certificate's key.
	KeyFile string `yaml:"keyFile"`
	// How long before the certificate's end it warns.
	WarnBefore Duration `yaml:"warnBefore"`
	// How long before the certificate's end it fails.
	FailBefore Duration `yaml:"failBefore"`
}

// ContainerCheck looks at the containers of a service of this node's Compose project.
type ContainerCheck struct {
	// The service.
	Service string `yaml:"service"`
	// How many containers it should have, 1 to 1000; with fewer, but at least one, it warns.
	Replicas int `yaml:"replicas"`
	// How often a container that is younger than two minutes may have been restarted by the engine, 1 to 1000.
	MaxRestarts int `yaml:"maxRestarts"`
}

// DiskCheck looks at the room on a file system.
type DiskCheck struct {
	// A file or directory on it.
	Path string `yaml:"path"`
	// Warn when less than this is free, a size or a percentage.
	Warn Room `yaml:"warn"`
	// Fail when less than this is free, a size or a percentage.
	Fail Room `yaml:"fail"`
	// Warn when fewer inodes than this are free.
	WarnInodes Percent `yaml:"warnInodes"`
	// Fail when fewer inodes than this are free.
	FailInodes Percent `yaml:"failInodes"`
}

// FileCheck looks at a file's age and size.
type FileCheck struct {
	// The file.
	Path string `yaml:"path"`
	// Warn when it was last written longer ago than this; 0s for never.
	WarnAge Duration `yaml:"warnAge"`
	// Fail when it was last written longer ago than this; 0s for never.
	FailAge Duration `yaml:"failAge"`
	// Fail when it is smaller than this.
	MinSize ByteSize `yaml:"minSize"`
}

// CommandCheck runs a program, as the agent's own user and without a shell.
type CommandCheck struct {
	// The program and its arguments. The first line that it prints is shown in /health, so it must not hold a secret.
	Argv []string `yaml:"argv"`
	// Directory to run it in; empty for the root directory.
	Dir string `yaml:"dir"`
	// Variables of its environment, which has PATH and LANG only. Never a secret.
	Environment map[string]string `yaml:"environment"`
}

// SystemdCheck asks systemd for a unit.
type SystemdCheck struct {
	// The unit's full name, such as nginx.service.
	Unit string `yaml:"unit"`
}

// ClockCheck measures how far the clock is off.
type ClockCheck struct {
	// NTP server, host or host:port. Empty: the kernel is asked whether something keeps its clock in step.
	Server string `yaml:"server"`
	// Warn from this offset on, either way.
	Warn Duration `yaml:"warn"`
	// Fail from this offset on, either way.
	Fail Duration `yaml:"fail"`
}
