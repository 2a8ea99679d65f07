package lab

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// LoadTimeout is after how long a request without an answer counts as failed.
const LoadTimeout = 30 * time.Second

// LoadTarget is a request that a load makes again and again.
type LoadTarget struct {
	Method, Path string
	Body         string // JSON, "" for none
	Want         int    // the only status that is no failure
}

// LoadSpec is what a load is made of.
type LoadSpec struct {
	Base    string // URL before the targets' paths
	Rate    int    // requests a second
	Clients int    // how many of them may be under way; each keeps its connection
	Targets []LoadTarget
}

// LoadServer is vegeta, which makes requests at a steady rate. When all clients wait it falls behind, and catches up later.
type LoadServer struct {
	*Process
	vegeta, results string
	want            map[string]int
}

// LoadAnswer is what became of one request.
type LoadAnswer struct {
	Method  string        `json:"method"`
	URL     string        `json:"url"`
	Began   time.Time     `json:"timestamp"`
	Latency time.Duration `json:"latency"`
	Code    int           `json:"code"` // 0 for no answer
	Error   string        `json:"error"`

	// Failed is set for anything but the status that was wanted.
	Failed bool `json:"-"`
}

// StartLoad begins at once and takes the targets by turns. dir is a directory for it that outlives it.
func StartLoad(dir string, spec LoadSpec) (*LoadServer, error) {
	path, err := program(VegetaVariable, "vegeta")
	if err != nil {
		return nil, err
	}
	l := &LoadServer{vegeta: path, results: filepath.Join(dir, "results"), want: map[string]int{}}
	var list bytes.Buffer
	encoder := json.NewEncoder(&list)
	for _, target := range spec.Targets {
		url := spec.Base + target.Path
		line := map[string]any{"method": target.Method, "url": url}
		if target.Body != "" {
			line["body"], line["header"] = []byte(target.Body), map[string][]string{"Content-Type": {"application/json"}}
		}
		if err := encoder.Encode(line); err != nil {
			return nil, err
		}
		l.want[target.Method+" "+url] = target.Want
	}
	file := filepath.Join(dir, "targets")
	if err := os.WriteFile(file, list.Bytes(), 0o600); err != nil {
		return nil, err
	}
	clients := strconv.Itoa(spec.Clients)
	l.Process, err = start("vegeta", exec.Command(path, "attack", "-format", "json", "-targets", file,
		"-rate", fmt.Sprintf("%d/1s", spec.Rate), "-max-workers", clients, "-connections", clients, "-duration", "0",
		"-timeout", LoadTimeout.String(), "-redirects", "-1", "-max-body", "0", "-output", l.results))
	return l, err
}

// Load starts a load that ends with the test. See [StartLoad].
func Load(t testing.TB, spec LoadSpec) *LoadServer {
	t.Helper()
	server, err := StartLoad(t.TempDir(), spec)
	need(t, err)
	endWith(t, server.Process)
	return server
}

// End waits for the requests under way and returns what became of all of them.
func (l *LoadServer) End(ctx context.Context) ([]LoadAnswer, error) {
	l.signal(unix.SIGINT)
	select {
	case <-l.done:
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for vegeta's last requests: %w", context.Cause(ctx))
	}
	if l.err != nil {
		return nil, fmt.Errorf("vegeta: %w\n%s", l.err, l.Log())
	}
	list, err := exec.CommandContext(ctx, l.vegeta, "encode", "-to", "json", l.results).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return nil, fmt.Errorf("read vegeta's results: %w", err)
	}
	var all []LoadAnswer
	lines := bufio.NewScanner(bytes.NewReader(list))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var a LoadAnswer
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			return nil, fmt.Errorf("read vegeta's results: %w", err)
		}
		want, known := l.want[a.Method+" "+a.URL]
		if !known {
			return nil, fmt.Errorf("read vegeta's results: it made a request that nobody asked for, %s %s: %s", a.Method, a.URL, a.Error)
		}
		// vegeta also calls a status below 200 or from 400 on an error, which may be what is wanted.
		a.Failed = a.Code != want
		all = append(all, a)
	}
	return all, lines.Err()
}
