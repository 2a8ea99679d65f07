package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/flowviz/flowagent/agent/secret"
)

// Redis passes when a Redis or Valkey server answers PING. A server that is loading its data set, a replica that has
// lost its primary, and one that wants another login are told apart, with what to do.
type Redis struct {
	// Addresses are host:port, or the absolute path of a Unix socket. A server alone has one. Of the nodes of a cluster,
	// or of Sentinels, any one that answers is enough; each gets its share of the time.
	Addresses []string
	// User is an ACL user; empty for the default user.
	User string
	// Password is asked for each probe, since secrets rotate; nil for a server without a password.
	Password func() secret.Value
	// TLS, when not nil, is spoken with every server, Sentinels included.
	TLS *ClientTLS
	// Primary asks for a server that takes writes: a read-only replica fails. Needs Redis 6 or later.
	Primary bool
	// Sentinel, when not nil, makes Addresses those of Sentinels, which are asked for the primary; that one is probed.
	Sentinel *RedisSentinel
	// Cluster says that the server is a node of a cluster: it warns when the cluster as a whole isn't ok.
	Cluster bool
}

// RedisSentinel is how to ask Sentinels for a primary.
type RedisSentinel struct {
	// Primary is the name under which Sentinels watch it, such as mymaster.
	Primary string
	// User and Password are the Sentinels' own login; empty and nil for none.
	User     string
	Password func() secret.Value
}

// Probe asks the addresses in turn until one passes or warns, and returns the best answer.
func (p *Redis) Probe(ctx context.Context) Result {
	switch {
	case len(p.Addresses) == 0:
		return failed("no address is configured")
	case len(p.Addresses) > 1 && p.Sentinel == nil && !p.Cluster:
		return failed("several addresses are configured, for neither Sentinels nor a cluster: name one")
	case p.Sentinel != nil && p.Cluster:
		return failed("both Sentinels and a cluster are configured: a cluster has no Sentinels")
	}
	if p.Sentinel != nil {
		return p.bySentinel(ctx)
	}
	return p.first(ctx, 0, p.node)
}

// first asks the addresses in turn. Each gets an equal share of the time that is left, and so do the `after` steps that
// follow, so that one dead address doesn't take it all.
func (p *Redis) first(ctx context.Context, after int, ask func(context.Context, string) Result) Result {
	var failures []string
	for i, address := range p.Addresses {
		shared, cancel := share(ctx, len(p.Addresses)-i+after)
		result := ask(shared, address)
		cancel()
		if result.Status != Fail {
			return result
		}
		if len(p.Addresses) > 1 {
			result.Output = address + ": " + result.Output
		}
		failures = append(failures, result.Output)
		if ctx.Err() != nil {
			break
		}
	}
	return failed("%s", strings.Join(failures, "; "))
}

// share gives one of n steps its part of the time that ctx has left.
func share(ctx context.Context, n int) (context.Context, context.CancelFunc) {
	deadline, limited := ctx.Deadline()
	if !limited {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Until(deadline)/time.Duration(n))
}

func (p *Redis) bySentinel(ctx context.Context) Result {
	var primary string
	found := p.first(ctx, 1, func(ctx context.Context, address string) Result {
		var err error
		if primary, err = p.resolve(ctx, address); err != nil {
			return failed("Sentinel: %v", err)
		}
		return Result{Status: Pass}
	})
	if found.Status == Fail {
		return found
	}
	result := p.server(ctx, primary, true)
	result.Output = fmt.Sprintf("primary %s: %s", primary, result.Output)
	return result
}

// resolve asks one Sentinel where the primary is.
func (p *Redis) resolve(ctx context.Context, address string) (string, error) {
	c, err := p.open(ctx, address)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := c.login(ctx, p.Sentinel.User, p.Sentinel.Password); err != nil {
		return "", err
	}
	reply, err := c.ask(ctx, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", p.Sentinel.Primary)
	if err != nil {
		return "", err
	}
	switch {
	case reply.kind == '*' && reply.null:
		return "", fmt.Errorf("it knows no primary %q: use the name that its configuration watches", p.Sentinel.Primary)
	case reply.kind == '*' && len(reply.items) == 2 && !strings.HasPrefix(reply.items[0].text, "/"):
		return net.JoinHostPort(excerpt(reply.items[0].text, nameLimit), excerpt(reply.items[1].text, nameLimit)), nil
	case reply.kind == '-' && strings.HasPrefix(reply.text, "ERR unknown command"):
		return "", errors.New("this is a server, not a Sentinel: give the Sentinels' addresses, whose usual port is 26379")
	case reply.kind == '-':
		return "", redisRefused(reply.text)
	}
	return "", errNotRedis
}

func (p *Redis) node(ctx context.Context, address string) Result {
	return p.server(ctx, address, p.Primary)
}

// server logs in to one server and pings it.
func (p *Redis) server(ctx context.Context, address string, primary bool) Result {
	c, err := p.open(ctx, address)
	if err != nil {
		return failure(err)
	}
	defer c.Close()
	unasked, err := c.login(ctx, p.User, p.Password)
	if err != nil {
		return verdict(err)
	}
	reply, err := c.ask(ctx, "PING")
	switch {
	case err != nil:
		return verdict(err)
	case reply.kind == '-':
		return verdict(redisRefused(reply.text))
	case reply.kind != '+' || reply.text != "PONG":
		return failure(errNotRedis)
	}
	result := passed("answers PING")
	if unasked {
		result = warned("answers PING, but wants no password although one is configured: give it one, or remove it here")
	}
	if primary {
		if result = c.writable(ctx, result); result.Status == Fail {
			return result
		}
	}
	if p.Cluster {
		result = c.cluster(ctx, result)
	}
	return result
}

// redisConn is one connection to one server.
type redisConn struct {
	*link
	replies *redisReader
}

func (p *Redis) open(ctx context.Context, address string) (*redisConn, error) {
	conn, err := dial(ctx, address, p.TLS)
	if err != nil {
		return nil, err
	}
	return &redisConn{link: conn, replies: newRedisReader(conn)}, nil
}

func (c *redisConn) ask(ctx context.Context, arguments ...string) (redisReply, error) {
	var raw [][]byte
	for _, argument := range arguments {
		raw = append(raw, []byte(argument))
	}
	return c.exchange(ctx, raw...)
}

func (c *redisConn) exchange(ctx context.Context, arguments ...[]byte) (redisReply, error) {
	command := appendRedisCommand(nil, arguments...)
	defer clear(command) // it may hold a password
	// A server that refuses a connection says why and closes it: its words matter more than that writing failed. After a
	// failure to write, reading doesn't wait.
	_, _ = c.Write(command)
	reply, err := c.replies.read()
	if err == nil {
		return reply, nil
	}
	if err = plain(ctx, err); errors.Is(err, errClosed) && c.link.Conn == c.raw {
		return redisReply{}, fmt.Errorf("%w: it may want TLS", err)
	}
	return redisReply{}, err
}

// login sends AUTH where a password is configured. unasked tells that the server has none. What a server answers to AUTH
// is never repeated: some repeat the arguments of a command that they don't know, password and all.
func (c *redisConn) login(ctx context.Context, user string, password func() secret.Value) (unasked bool, err error) {
	if password == nil {
		if user == "" {
			return false, nil
		}
		return false, fmt.Errorf("user %q is configured without a password: name its secret", user)
	}
	value := password()
	if value.IsZero() {
		return false, errors.New("the secret with the password isn't there yet")
	}
	arguments := [][]byte{[]byte("AUTH"), value.Reveal()}
	if user != "" {
		arguments = slices.Insert(arguments, 1, []byte(user))
	}
	reply, err := c.exchange(ctx, arguments...)
	switch {
	case err != nil:
		return false, err
	case reply.kind == '+' && reply.text == "OK":
		return false, nil
	case reply.kind != '-':
		return false, errNotRedis
	// Redis 6 and later, Valkey; Redis 5 and earlier.
	case strings.HasPrefix(reply.text, "ERR AUTH <password> called without any password configured"),
		strings.HasPrefix(reply.text, "ERR Client sent AUTH, but no password is set"):
		return true, nil
	case strings.HasPrefix(reply.text, "ERR invalid password"): // Redis 5 and earlier
		return false, redisRefused("WRONGPASS")
	}
	return false, redisLoginRefused(reply.text)
}

// writable fails the result unless the server is a primary. HELLO tells that to every user, unlike ROLE and INFO, which
// ACLs count among the dangerous commands.
func (c *redisConn) writable(ctx context.Context, result Result) Result {
	reply, err := c.ask(ctx, "HELLO", "2")
	if err != nil {
		return verdict(err)
	}
	for i := 0; i+1 < len(reply.items); i += 2 {
		if reply.items[i].text != "role" {
			continue
		}
		if role := reply.items[i+1].text; role != "master" {
			return failed("the server is a read-only replica: a failover may be under way, or this is the wrong address")
		}
		return result
	}
	result.Status = Warn
	result.Output += ", but doesn't tell whether it takes writes (Redis 5 and earlier don't)"
	return result
}

// cluster turns the result into a warning when the node says that the cluster doesn't serve every slot.
func (c *redisConn) cluster(ctx context.Context, result Result) Result {
	reply, err := c.ask(ctx, "CLUSTER", "INFO")
	if err != nil {
		return verdict(err)
	}
	state, found := "", false
	for line := range strings.Lines(reply.text) {
		if state, found = strings.CutPrefix(strings.TrimRight(line, "\r\n"), "cluster_state:"); found {
			break
		}
	}
	switch {
	case found && state == "ok":
		result.Output += "; the cluster is ok"
		return result
	case found:
		result.Output += fmt.Sprintf("; the cluster's state is %s: it doesn't serve every slot", excerpt(state, nameLimit))
	case reply.kind == '-' && strings.Contains(reply.text, "cluster support disabled"):
		return failed("the server is not a node of a cluster: don't ask for one")
	case reply.kind == '-':
		result.Output += fmt.Sprintf("; CLUSTER INFO: %v", redisRefused(reply.text))
	default:
		return failure(errNotRedis)
	}
	result.Status = Warn
	return result
}

// redisRefusal is an error that a server answered with.
type redisRefusal struct {
	status Status
	text   string
}

func (e *redisRefusal) Error() string { return e.text }

// redisCodes are the first words of error replies, as in the servers' createSharedObjects (server.c), with what they
// mean for somebody who wants to use the server.
var redisCodes = map[string]string{
	"LOADING":     "is loading its data set",
	"MASTERDOWN":  "is a replica that has lost its primary and doesn't serve stale data",
	"NOAUTH":      "wants a password: configure one, or its ACL user",
	"WRONGPASS":   "refuses the login: the user or the password is wrong, or the user is disabled",
	"NOPERM":      "lets this user log in, but not run PING: allow it by ACL SETUSER … +ping",
	"READONLY":    "is a read-only replica",
	"BUSY":        "is busy running a script",
	"MISCONF":     "refuses writes, because it can't save to disk: see its log",
	"CLUSTERDOWN": "is a node of a cluster that is down",
	"DENIED":      "is in protected mode: give it a password, or let it listen on a loopback address only",
}

// redisRefused judges an error reply to anything but a login.
func redisRefused(text string) error {
	if known := knownRedisRefusal(text); known != nil {
		return known
	}
	return &redisRefusal{Fail, "the server refuses: " + excerpt(text, redisTextLimit)}
}

// redisLoginRefused judges an error reply to AUTH without repeating it.
func redisLoginRefused(text string) error {
	if known := knownRedisRefusal(text); known != nil {
		return known
	}
	return &redisRefusal{Fail, "the server doesn't take this kind of login (Redis 5 and earlier have no users)"}
}

func knownRedisRefusal(text string) error {
	word, _, _ := strings.Cut(text, " ")
	word = strings.TrimPrefix(word, "-") // the refusal in protected mode begins with two of them
	if meaning, known := redisCodes[word]; known {
		return &redisRefusal{Fail, "the server " + meaning}
	}
	// It works for those who are connected: like PostgreSQL's 53300, a warning.
	if strings.HasPrefix(text, "ERR max number of clients") {
		return &redisRefusal{Warn, "answers, but its maximum number of clients is reached"}
	}
	return nil
}

// redisTextLimit shows the beginning of an unknown error; a line on a terminal holds about as much.
const redisTextLimit = 120

// verdict is the result that an error stands for.
func verdict(err error) Result {
	var refused *redisRefusal
	if errors.As(err, &refused) {
		return Result{Status: refused.status, Output: refused.text}
	}
	return failure(err)
}
