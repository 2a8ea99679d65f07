package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"github.com/flowviz/flowagent/agent/drain/hook"
	"github.com/flowviz/flowagent/agent/drain/notice"
	"github.com/flowviz/flowagent/agent/health"
	"github.com/flowviz/flowagent/agent/launch"
	"github.com/flowviz/flowagent/agent/node"
	"github.com/flowviz/flowagent/internal/atomicfile"
)

// launching is one launch of this instance by its Auto Scaling group, into service or into a warm pool.
type launching struct {
	ready func()        // says that the node is what it was launched to be
	is    chan struct{} // closed by ready
	fails chan error    // holds why it never will be
	done  chan struct{} // closed when hooks were answered, or none waits
}

func newLaunching() *launching {
	l := &launching{is: make(chan struct{}), fails: make(chan error, 1), done: make(chan struct{})}
	l.ready = sync.OnceFunc(func() { close(l.is) })
	return l
}

// over tells a launch that nobody waits for, or not any more.
func (l *launching) over() bool { return closed(l.done) }

// isReady tells a node that turned ready.
func (l *launching) isReady() bool { return closed(l.is) }

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// launchNote is what a restarted agent has to know of the launch. It is in the run directory: a reboot begins anew.
type launchNote struct {
	Place    string    `json:"place"` // where the instance was launched to, as a target lifecycle state
	Began    time.Time `json:"began"`
	Failed   string    `json:"failed,omitempty"` // why the last try to boot failed
	GiveUp   time.Time `json:"giveUp,omitzero"`  // when a launch that failed is abandoned; zero for one that hasn't
	Answered bool      `json:"answered,omitempty"`
}

func (a *Agent) launchPath() string { return filepath.Join(a.opts.RunDir, "launch.json") }

// readLaunch is the note of a launch to place; a new one where there is none.
func (a *Agent) readLaunch(ctx context.Context, place string) launchNote {
	if place == "" { // a group that is slow to tell
		place = notice.InService
	}
	var note launchNote
	content, err := os.ReadFile(a.launchPath())
	if err == nil {
		err = json.Unmarshal(content, &note)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.log.WarnContext(ctx, "what an earlier agent noted of the launch is lost: its time begins anew", "error", err)
	}
	if err != nil || note.Place != place {
		return launchNote{Place: place, Began: time.Now()}
	}
	return note
}

func (a *Agent) writeLaunch(ctx context.Context, note launchNote) {
	content, err := json.Marshal(note)
	if err == nil {
		err = atomicfile.Write(a.launchPath(), append(content, '\n'), 0o600)
	}
	if err != nil {
		a.log.WarnContext(ctx, "launch not noted: a restarted agent gives it more time", "error", err)
	}
}

// beginLaunch looks after the launch that the instance may be in. Nothing waits for it but a boot that failed, so an agent
// that stops leaves it to the next one.
func (a *Agent) beginLaunch(ctx context.Context) {
	if a.parts().membership == nil {
		return
	}
	l := newLaunching()
	a.mu.Lock()
	a.launching = l
	a.mu.Unlock()
	go a.seeLaunch(ctx, l, a.place.State())
}

// launched says that the node is what it was launched to be.
func (a *Agent) launched() {
	a.mu.Lock()
	l := a.launching
	a.mu.Unlock()
	if l != nil {
		l.ready()
	}
}

// launchFailed gives the launch up where trying again is of no use, and returns when that is done. Otherwise it keeps what
// failed: systemd starts the agent again, until the launch's time is over.
func (a *Agent) launchFailed(ctx context.Context, err error) {
	var operators *ConfigurationError
	forGood := errors.As(err, &operators) || !a.supervisor.notifier.Present()
	a.mu.Lock()
	l := a.launching
	a.mu.Unlock()
	if l == nil && errors.As(err, &operators) && a.findMembership(ctx) {
		// What the configuration says of hooks isn't known: all of them are answered.
		a.beginLaunch(ctx)
		a.mu.Lock()
		l = a.launching
		a.mu.Unlock()
	}
	switch {
	case l == nil:
		return
	case forGood:
		a.endpoint.Set(health.Failing, "boot failed: "+err.Error())
		l.fails <- err
		select {
		case <-l.done:
		case <-a.parting.Leaving().Done(): // whoever has it leave doesn't wait for that
		}
	case !l.over():
		note := a.readLaunch(ctx, a.place.State())
		note.Failed = err.Error()
		a.writeLaunch(ctx, note)
	}
}

// findMembership has the instance's place known where the boot didn't get that far; false for a machine that no group
// launched.
func (a *Agent) findMembership(ctx context.Context) bool {
	if a.parts().membership != nil {
		return true
	}
	identity, metadata, err := node.Discover(ctx, a.parts().config.Node, node.Options{Log: a.log})
	if err != nil || metadata == nil {
		return false
	}
	a.update(func(p *parts) { p.identity = identity })
	a.aws = newAWS(identity.Region, metadata)
	member, err := a.join(ctx, metadata)
	if err != nil {
		a.log.WarnContext(ctx, "launch not given up", "error", err)
		return false
	}
	a.update(func(p *parts) { p.membership = member })
	a.lookAtPlace(ctx)
	return true
}

// seeLaunch answers the launch hooks that hold the instance: CONTINUE when the node is ready, ABANDON when it won't be. The
// group's launches that failed before make it wait longer before it has the instance replaced. It ends with ctx: the next
// agent goes on.
func (a *Agent) seeLaunch(ctx context.Context, l *launching, place string) {
	defer close(l.done)
	p := a.parts()
	note := a.readLaunch(ctx, place)
	if note.Answered {
		return
	}
	waits, err := p.membership.hooks.Underway(ctx, hook.Launching)
	if err != nil {
		a.log.WarnContext(ctx, "launch hooks not looked for: the hook's own default decides where one waits", "error", err)
		return
	}
	if !waits {
		return
	}
	a.writeLaunch(ctx, note)
	hooks, err := p.membership.hooks.Find(ctx, hook.Launching, p.config.Lifecycle.LaunchHook)
	switch {
	case errors.Is(err, hook.ErrNoHook):
		return
	case err != nil:
		a.log.WarnContext(ctx, "launch hooks not found: the hook's own default decides", "error", err)
		return
	}
	keeping, stop := context.WithCancel(ctx)
	var working sync.WaitGroup
	defer working.Wait()
	defer stop()
	for _, h := range hooks {
		working.Go(func() { h.Keep(keeping, time.Time{}) })
	}
	failures := p.membership.failures(hooks[0].Group)
	result, done := hook.Continue, false
	limit := time.Duration(p.config.Lifecycle.LaunchTimeout)
	select {
	case <-l.is:
	case err = <-l.fails:
	case <-time.After(time.Until(note.Began.Add(limit))):
		err = fmt.Errorf("not ready within %s: %s", limit, a.whyNot(ctx, place))
	case <-ctx.Done():
		return
	}
	if err != nil {
		if result, done = a.damp(ctx, l, &note, failures, err); done {
			return
		}
	}
	var completing sync.WaitGroup
	for _, h := range hooks {
		completing.Go(func() {
			if _, err := h.Complete(ctx, result); err != nil {
				a.log.ErrorContext(ctx, "launch hook not completed", "hook", h.Name, "error", err)
			}
		})
	}
	completing.Wait()
	note.Answered = true
	a.writeLaunch(ctx, note)
	if result == hook.Continue {
		if err := failures.Clear(context.WithoutCancel(ctx)); err != nil {
			a.log.WarnContext(ctx, "failed launches of the group still count", "error", err)
		}
	}
}

// damp counts a failed launch and waits before it is given up, the longer the more failed before it. A node that turns ready
// in that time is let in after all. over says that the agent stops instead; the next one counts the failure no second time.
func (a *Agent) damp(ctx context.Context, l *launching, note *launchNote, failures *launch.Failures, failed error) (result hook.Result, over bool) {
	log := a.log.With("reason", failed.Error())
	if note.GiveUp.IsZero() {
		count, err := failures.Add(ctx, failed.Error())
		if err != nil {
			a.log.WarnContext(ctx, "failed launches of the group can't be counted: instances may be replaced without end", "error", err)
		}
		wait := launch.Damping(count)
		note.GiveUp = time.Now().Add(wait)
		a.writeLaunch(ctx, *note)
		log = log.With("failures", count)
		if wait > 0 {
			log.WarnContext(ctx, "launch failed, as others of the group before: the instance is given up later", "wait", wait)
		}
	}
	select {
	case <-time.After(time.Until(note.GiveUp)):
	case <-l.is:
	case <-ctx.Done():
		return "", true
	}
	if l.isReady() { // also one that turned ready as its time was up
		log.InfoContext(ctx, "node is ready after all")
		return hook.Continue, false
	}
	log.ErrorContext(ctx, "launch given up: the instance is to be replaced")
	return hook.Abandon, false
}

// whyNot says what keeps a node from being ready.
func (a *Agent) whyNot(ctx context.Context, place string) string {
	answer := a.endpoint.Snapshot()
	why := describe(answer.State.String(), answer.Detail)
	for _, c := range answer.Checks {
		if c.Status != "pass" {
			why += fmt.Sprintf("; check %s: %s", c.Name, c.Output)
		}
	}
	if failed := a.readLaunch(ctx, place).Failed; failed != "" {
		why += "; the try before: " + failed
	}
	return why
}

// failures are the group's failed launches.
func (m *membership) failures(group string) *launch.Failures {
	return launch.NewFailures(ssm.NewFromConfig(m.aws), group, m.instance)
}
