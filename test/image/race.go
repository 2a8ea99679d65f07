package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/flowviz/flowagent/test/lab"
)

// sooner is how many times sooner than with a boot script the golden image has to serve.
const sooner = 3

// timeline is one boot, in times since its kernel began.
type timeline struct {
	answers time.Duration // the application's /health is 200 for somebody outside
	marks   []mark        // in order
}

// mark is something that happened in between.
type mark struct {
	what string
	at   time.Duration
}

// goldenMarks prints a line for each mark of a golden boot: what, a tab, and microseconds since the kernel began.
const goldenMarks = `
when() { printf '%s\t%s\n' "$1" "$(systemctl show "${@:3}" --property="$2" --value)"; }
when 'systemd begins' UserspaceTimestampMonotonic
when 'cloud-init has read the seed' ActiveEnterTimestampMonotonic cloud-init-network.service
when 'the network is up' ActiveEnterTimestampMonotonic network-online.target
when 'the engine runs' ActiveEnterTimestampMonotonic docker.service
when 'flowagent is started' ExecMainStartTimestampMonotonic flowagent.service
when 'the workload is up' ActiveEnterTimestampMonotonic flowagent.service
`

// scriptMarks does the same for a boot by test/image/user-data.sh, which writes them itself.
const scriptMarks = `
printf 'systemd begins\t%s\n' "$(systemctl show --property=UserspaceTimestampMonotonic --value)"
cat /var/log/user-data.marks
`

// complete adds to a timeline what a script prints of the machine's marks.
func (t *timeline) complete(ctx context.Context, m *machine, script string) error {
	out, err := m.sudo(ctx, script)
	if err != nil {
		return err
	}
	marks, err := parseMarks(out)
	t.marks = inOrder(append(append(t.marks, marks...), mark{"the application's /health is 200 from outside", t.answers}))
	return err
}

func inOrder(marks []mark) []mark {
	return slices.SortedStableFunc(slices.Values(marks), func(a, b mark) int { return cmp.Compare(a.at, b.at) })
}

func parseMarks(text string) ([]mark, error) {
	var marks []mark
	for line := range strings.Lines(text) {
		what, at, found := strings.Cut(strings.TrimSpace(line), "\t")
		microseconds, err := strconv.ParseInt(at, 10, 64)
		if !found || err != nil || microseconds <= 0 {
			return nil, fmt.Errorf("no time in %q", line)
		}
		marks = append(marks, mark{what, time.Duration(microseconds) * time.Microsecond})
	}
	return marks, nil
}

// race asks the golden clone how its boot went, and boots the base disk with a script that makes a node of it in its place.
func (p *proof) race(ctx context.Context, c *clone, golden timeline) {
	var script timeline
	if !p.show(ctx, c.name+" says when it got how far", func(ctx context.Context) (string, error) {
		return "", golden.complete(ctx, c.machine, goldenMarks)
	}) {
		return
	}
	c.close() // the next machine gets the processors
	if !p.show(ctx, "the base disk with a boot script answers 200", func(ctx context.Context) (string, error) {
		var err error
		script, err = p.bootByScript(ctx)
		return fmt.Sprintf("%.1f s after its kernel began", script.answers.Seconds()), err
	}) {
		return
	}
	fmt.Fprintln(p.log)
	printTimeline(p.log, "golden image", golden)
	printTimeline(p.log, "boot script", script)
	p.show(ctx, fmt.Sprintf("the golden image serves at least %d times sooner", sooner), func(context.Context) (string, error) {
		ratio := script.answers.Seconds() / golden.answers.Seconds()
		detail := fmt.Sprintf("%.1f times", ratio)
		if ratio < sooner {
			return detail, errors.New("the timelines above show where the time goes")
		}
		return detail, nil
	})
}

func printTimeline(w io.Writer, name string, t timeline) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "      %s\t\n", name)
	for _, m := range t.marks {
		fmt.Fprintf(table, "      %8.1f s\t%s\n", m.at.Seconds(), m.what)
	}
	_ = table.Flush() // to a terminal or a log; the figures are in the lines around as well
	fmt.Fprintln(w)
}

// bootByScript boots a machine of the same kind whose user data installs the engine, fetches the same images and starts the same
// project.
func (p *proof) bootByScript(ctx context.Context) (timeline, error) {
	user, err := p.newLogin()
	if err != nil {
		return timeline{}, err
	}
	registry, err := p.startRegistry(ctx)
	if err != nil {
		return timeline{}, err
	}
	defer registry.Stop()
	_, port, err := net.SplitHostPort(registry.Host)
	if err != nil {
		return timeline{}, err
	}
	address := net.JoinHostPort(hostAddress, port)
	seed := "#cloud-config\nssh_authorized_keys: ['" + user.authorized + "']\nwrite_files:\n"
	for path, from := range map[string]string{
		"/opt/wms/compose.yaml":                      filepath.Join(p.root, "examples/wms/compose.yaml"),
		"/opt/wms/compose.standalone.yaml":           filepath.Join(p.root, "examples/wms/compose.standalone.yaml"),
		"/opt/wms/calm.yaml":                         filepath.Join(p.root, "test/image/node/calm.yaml"),
		"/opt/wms/user-data.sh":                      filepath.Join(p.root, "test/image/user-data.sh"),
		"/etc/docker/certs.d/" + address + "/ca.crt": registry.CAFile,
	} {
		content, err := os.ReadFile(from)
		if err != nil {
			return timeline{}, err
		}
		seed += "  - {path: " + path + ", encoding: b64, content: " + base64.StdEncoding.EncodeToString(content) + "}\n"
	}
	for _, name := range []string{"db_password", "cache_password"} {
		seed += "  - {path: /opt/wms/secrets/" + name + ", permissions: '0444', content: " + rand.Text() + "}\n"
	}
	seed += "  - {path: /opt/wms/registry_password, permissions: '0400', content: " + registry.Password + "}\n" +
		"runcmd:\n  - [bash, /opt/wms/user-data.sh, '" + address + "', " + registry.Username + "]\n"

	m, err := p.newMachine(ctx, "script", user, hardware{backing: p.base, files: map[string]string{
		"meta-data": "instance-id: script\nlocal-hostname: script\n", "user-data": seed,
	}})
	if err != nil {
		return timeline{}, err
	}
	defer m.close()
	if err := m.powerOn(ctx); err != nil {
		return timeline{}, err
	}
	healthy, err := m.awaitHealthy(ctx, apiPort)
	if err != nil {
		return timeline{}, err
	}
	boot := timeline{answers: healthy.Sub(m.console.kernelBegan())}
	return boot, boot.complete(ctx, m, scriptMarks)
}

// hostAddress is as what a machine reaches this one's loopback.
const hostAddress = "10.0.2.2"

// startRegistry starts a registry with the application's images, which asks for a password and speaks TLS only.
func (p *proof) startRegistry(ctx context.Context) (*lab.RegistryServer, error) {
	dir := filepath.Join(p.work, "registry")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	registry, err := lab.StartRegistry(ctx, dir, hostAddress)
	if err != nil {
		return nil, err
	}
	// In the environment, which is root's alone to read, as the arguments are not.
	env := []string{"REGISTRY_PASSWORD=" + registry.Password}
	if _, err := p.run(ctx, "push", env, "test/image/push.sh", p.images, registry.Host, registry.Username); err != nil {
		registry.Stop()
		return nil, err
	}
	return registry, nil
}
