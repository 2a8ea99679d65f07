package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/flowviz/flowagent/agent/workload"
	"github.com/flowviz/flowagent/internal/atomicfile"
)

// callbook remembers which version of its secrets each service was last signalled about, so that a signal is owed
// however the agent ended in between. It holds fingerprints, no secrets, and goes with the containers at a reboot.
type callbook struct{ path string }

func (b callbook) read() (map[call]string, error) {
	content, err := os.ReadFile(b.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read which services were signalled: %w", err)
	}
	var byName map[string]string
	if err := json.Unmarshal(content, &byName); err != nil {
		return nil, fmt.Errorf("read which services were signalled: %s is damaged: remove it: %w", b.path, err)
	}
	versions := map[call]string{}
	for name, version := range byName {
		service, signal, _ := strings.Cut(name, " ")
		versions[call{service, signal}] = version
	}
	return versions, nil
}

func (b callbook) write(versions map[call]string) error {
	byName := map[string]string{}
	for c, version := range versions {
		byName[c.service+" "+c.signal] = version
	}
	content, err := json.Marshal(byName)
	if err != nil {
		return fmt.Errorf("encode which services were signalled: %w", err)
	}
	if err := atomicfile.Write(b.path, append(content, '\n'), 0o600); err != nil {
		return fmt.Errorf("write which services were signalled: %w", err)
	}
	return nil
}

// owed are the calls for services that run since before written and were last told of another version. A container
// that was started later has read the new files.
func owed(told, now map[call]string, state workload.State, written time.Time) []call {
	var calls []call
	for c, version := range now {
		before, known := told[c]
		if known && before != version && runsSince(state, c.service, written) {
			calls = append(calls, c)
		}
	}
	slices.SortFunc(calls, func(a, b call) int {
		return cmp.Or(cmp.Compare(a.service, b.service), cmp.Compare(a.signal, b.signal))
	})
	return calls
}

func runsSince(state workload.State, service string, at time.Time) bool {
	for _, s := range state.Services {
		if s.Name == service {
			return slices.ContainsFunc(s.Containers, func(c workload.ContainerState) bool {
				return c.Status == "running" && c.StartedAt.Before(at)
			})
		}
	}
	return false
}

// signal tells the services what they are owed after secrets were written, except those that are about to be recreated.
// A signal that could not be sent stays owed.
func (a *Agent) signal(ctx context.Context, written time.Time, except []string) error {
	p := a.parts()
	book := callbook{filepath.Join(a.opts.RunDir, "signalled.json")}
	told, err := book.read()
	if err != nil {
		a.log.WarnContext(ctx, "signalled services not known", "error", err) // and begin anew
	}
	now := p.delivery.versions()
	if maps.Equal(told, now) {
		return nil
	}
	state, err := p.runner.State(ctx)
	if err != nil {
		return err
	}
	var failed []error
	for _, c := range owed(told, now, state, written) {
		if slices.Contains(except, c.service) {
			continue
		}
		a.log.InfoContext(ctx, "secret changed: service gets a signal", "service", c.service, "signal", c.signal)
		if err := p.runner.Signal(ctx, []string{c.service}, c.signal); err != nil {
			failed = append(failed, err)
			now[c] = told[c]
		}
	}
	return errors.Join(append(failed, book.write(now))...)
}
