package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// sooner is how many times sooner than with a boot script the golden image has to serve.
const sooner = 3

// timeline is one boot, in times since its kernel began.
type timeline struct {
	total time.Duration // /health answers 200 to somebody outside
	marks []mark
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

// marks runs a script that prints a machine's marks.
func (m *machine) marks(ctx context.Context, script string) ([]mark, error) {
	out, err := m.sudo(ctx, script)
	if err != nil {
		return nil, err
	}
	return parseMarks(out)
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
	slices.SortStableFunc(marks, func(a, b mark) int { return int(a.at - b.at) })
	return marks, nil
}

// race boots the base disk with a script that makes a node of it, and compares.
func (p *proof) race(ctx context.Context, golden timeline) {
	var script timeline
	if !p.show(ctx, "the base disk with a boot script answers 200", func(ctx context.Context) (string, error) {
		var err error
		script, err = p.bootByScript(ctx)
		return fmt.Sprintf("%.1f s after its kernel began", script.total.Seconds()), err
	}) {
		return
	}
	fmt.Fprintln(p.log)
	printTimeline(p.log, "golden image", golden)
	printTimeline(p.log, "boot script", script)
	p.show(ctx, fmt.Sprintf("the golden image serves at least %d times sooner", sooner), func(context.Context) (string, error) {
		ratio := script.total.Seconds() / golden.total.Seconds()
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
	for _, m := range append(t.marks, mark{"/health answers 200 from outside", t.total}) {
		fmt.Fprintf(table, "      %8.1f s\t%s\n", m.at.Seconds(), m.what)
	}
	_ = table.Flush() // to a terminal or a log; the figures are in the lines around as well
	fmt.Fprintln(w)
}

// bootByScript boots a machine of the same kind whose user data installs the engine, fetches the same images and starts the same
// project.
func (p *proof) bootByScript(ctx context.Context) (timeline, error) {
	user, err := newLogin()
	if err != nil {
		return timeline{}, err
	}
	stop, address, err := p.serveImages()
	if err != nil {
		return timeline{}, err
	}
	defer stop()
	seed := "#cloud-config\nssh_authorized_keys: ['" + user.authorized + "']\nwrite_files:\n"
	for path, from := range map[string]string{
		"/opt/wms/compose.yaml":            "examples/wms/compose.yaml",
		"/opt/wms/compose.standalone.yaml": "examples/wms/compose.standalone.yaml",
		"/opt/wms/calm.yaml":               "test/image/node/calm.yaml",
		"/opt/wms/user-data.sh":            "test/image/user-data.sh",
	} {
		content, err := os.ReadFile(filepath.Join(p.root, from))
		if err != nil {
			return timeline{}, err
		}
		seed += "  - {path: " + path + ", encoding: b64, content: " + base64.StdEncoding.EncodeToString(content) + "}\n"
	}
	for _, name := range []string{"db_password", "cache_password"} {
		seed += "  - {path: /opt/wms/secrets/" + name + ", permissions: '0444', content: " + rand.Text() + "}\n"
	}
	seed += "runcmd:\n  - [bash, /opt/wms/user-data.sh, 'http://" + address + "/images.tar']\n"

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
	boot := timeline{total: healthy.Sub(m.console.kernelBegan())}
	boot.marks, err = m.marks(ctx, scriptMarks)
	return boot, err
}

// serveImages offers the archive of images on the loopback, which a machine reaches as 10.0.2.2.
func (p *proof) serveImages() (stop func(), address string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /images.tar", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, p.images) })
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(l) }() // it ends when it is closed
	return func() { _ = server.Close() }, fmt.Sprintf("10.0.2.2:%d", l.Addr().(*net.TCPAddr).Port), nil
}
