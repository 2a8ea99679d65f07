package workload

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/events"

	"github.com/flowviz/flowagent/agent/config"
)

const kept = `
services:
  db: {image: x, restart: always}
  web: {image: x, restart: always, depends_on: [db]}
  pair: {image: x, restart: always, deploy: {replicas: 2}}
  job: {image: x}
`

// room is a project that a policy watches, with a clock that is moved by hand.
type room struct {
	t          *testing.T
	p          *policy
	n          *intents
	now        time.Time
	containers map[string]ContainerState
	told       []string // what the policy said, in a few words each
	numbers    int
}

func newRoom(t *testing.T, change func(*config.Reconcile)) *room {
	cfg := config.Reconcile{Tries: 3, UnhealthyAfter: config.Duration(3 * time.Minute)}
	if change != nil {
		change(&cfg)
	}
	project := mustLoad(t, kept)
	r := &room{t: t, now: noon, containers: map[string]ContainerState{}}
	r.p = newPolicy(project, func() float64 { return 0.5 })
	r.p.cfg, r.p.ready = cfg, config.Ready{Timeout: config.Duration(5 * time.Minute), StableFor: config.Duration(time.Second)}
	r.n = newIntents(func(string, time.Time) bool { return false })
	for _, service := range project.Services() {
		for number := range project.replicas(service) {
			r.run(service, number+1)
		}
	}
	j := r.containers["job-1"]
	j.Status = "exited"
	r.containers["job-1"] = j
	r.after(time.Hour)
	return r
}

// run puts a container, made anew, into a service's seat.
func (r *room) run(service string, number int) {
	name := service + "-" + strconv.Itoa(number)
	r.numbers++
	r.containers[name] = ContainerState{
		ID: fmt.Sprintf("%s-%d", name, r.numbers), Name: name, Service: service, Number: number, Status: "running", StartedAt: r.now,
	}
}

func (r *room) change(name string, change func(*ContainerState)) {
	c := r.containers[name]
	change(&c)
	r.containers[name] = c
}

func exited(c *ContainerState)    { c.Status = "exited" }
func unhealthy(c *ContainerState) { c.Health = "unhealthy" }
func healthy(c *ContainerState)   { c.Health = "healthy" }

// hear has something happen to a container, as the engine tells it.
func (r *room) hear(name string, actions ...string) {
	c := r.containers[name]
	for _, action := range actions {
		action, signal, _ := strings.Cut(action, " ")
		r.n.heard(events.Message{
			Action: events.Action(action), TimeNano: r.now.UnixNano(),
			Actor: events.Actor{ID: c.ID, Attributes: map[string]string{labelService: c.Service, labelNumber: strconv.Itoa(c.Number), "signal": signal}},
		}, c.stopSignal)
	}
}

// after lets time pass and returns the services whose turn it is.
func (r *room) after(d time.Duration) []string {
	r.now = r.now.Add(d)
	byID := map[string]ContainerState{}
	for _, c := range r.containers {
		byID[c.ID] = c
	}
	r.n.settle(byID)
	state, _ := judge{project: r.p.project, now: r.now, settled: true, stableFor: time.Second}.state(byID)
	told, _ := r.p.observe(state, r.n, r.now)
	r.tell(told)
	var services []string
	for _, o := range r.p.due(r.now) {
		services = append(services, o.service)
	}
	return services
}

func (r *room) tell(told []Recovery) {
	for _, one := range told {
		r.told = append(r.told, one.Service+" "+string(one.Step))
	}
}

// bringBack carries out what is due and has it end with err.
func (r *room) bringBack(err error) {
	r.t.Helper()
	due := r.p.due(r.now)
	if len(due) == 0 {
		r.t.Fatal("nothing is due")
	}
	for _, o := range due {
		r.tell([]Recovery{r.p.begin(o, r.now)})
		r.tell(r.p.carriedOut(o, err, r.now))
	}
}

func (r *room) want(d time.Duration, services ...string) {
	r.t.Helper()
	if got := r.after(d); !slices.Equal(got, services) {
		r.t.Errorf("at %s: got %v to bring back, want %v", r.now.Format(time.TimeOnly), got, services)
	}
}

func TestPolicyBringsBackWhatIsGoneForLongerThanItTakesToMakeItAnew(t *testing.T) {
	for name, lose := range map[string]func(*room){
		"removed":         func(r *room) { delete(r.containers, "web-1") },
		"dead":            func(r *room) { r.change("web-1", func(c *ContainerState) { c.Status = "dead" }) },
		"ended by itself": func(r *room) { r.hear("web-1", "die"); r.change("web-1", exited) },
		"not started": func(r *room) {
			r.change("web-1", func(c *ContainerState) { c.Status, c.Error = "created", "no such mount" })
		},
		"not started again": func(r *room) {
			r.change("web-1", func(c *ContainerState) { c.Status, c.Error = "exited", "no such mount" })
		},
		"removed with force":   func(r *room) { r.hear("web-1", "kill 9", "die", "destroy"); delete(r.containers, "web-1") },
		"ended after a reload": func(r *room) { r.hear("web-1", "kill 1", "die"); r.change("web-1", exited) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t, nil)
			lose(r)
			r.want(0)
			r.want(settleTime - time.Millisecond)
			r.want(time.Millisecond, "web")
			r.bringBack(nil)
			r.run("web", 1)
			r.want(time.Second)
			r.want(time.Second)
			if diff := cmp.Diff([]string{"web begun", "web done"}, r.told); diff != "" {
				t.Errorf("told (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPolicyKeepsOutOfWhatSomebodyMakesAnew(t *testing.T) {
	r := newRoom(t, nil)
	r.hear("web-1", "kill 15", "die", "stop", "destroy")
	delete(r.containers, "web-1")
	r.want(time.Minute)
	r.run("web", 1)
	r.want(time.Second)
	delete(r.containers, "web-1")
	r.want(0)
	r.want(settleTime - time.Second)
	r.run("web", 1)
	r.want(time.Hour)
	if len(r.told) > 0 {
		t.Errorf("told %v, want nothing", r.told)
	}
}

func TestPolicyLeavesAloneWhatWasStoppedOnPurposeUntilItRuns(t *testing.T) {
	for name, stop := range map[string]func(*room){
		"stopped": func(r *room) { r.hear("web-1", "kill 15", "die", "stop"); r.change("web-1", exited) },
		"killed":  func(r *room) { r.hear("web-1", "kill 9", "die"); r.change("web-1", exited) },
		"killed by stop signal": func(r *room) {
			r.change("web-1", func(c *ContainerState) { c.stopSignal = "SIGUSR1" })
			r.hear("web-1", "kill 10", "die")
			r.change("web-1", exited)
		},
		"taken down": func(r *room) { r.hear("web-1", "kill 15", "die", "stop", "destroy"); delete(r.containers, "web-1") },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t, nil)
			stop(r)
			r.want(0)
			r.want(24 * time.Hour)
			r.run("web", 1)
			r.want(time.Minute)
			delete(r.containers, "web-1")
			r.want(0)
			r.want(settleTime, "web")
		})
	}
}

func TestPolicyBringsBackWhatWasRunAgainForTooShortToBeSeen(t *testing.T) {
	r := newRoom(t, nil)
	r.hear("web-1", "kill 15", "die", "stop")
	r.change("web-1", exited)
	r.want(time.Minute)
	r.hear("web-1", "start")
	r.now = r.now.Add(time.Second)
	r.hear("web-1", "kill 9", "die", "destroy")
	delete(r.containers, "web-1")
	r.want(0)
	r.want(settleTime, "web")
}

func TestPolicyKeepsToAStopThoughItHearsOfAnEarlierStartAgain(t *testing.T) {
	r := newRoom(t, nil)
	r.hear("web-1", "start")
	r.now = r.now.Add(time.Millisecond)
	r.hear("web-1", "kill 15", "die", "stop")
	r.change("web-1", exited)
	r.want(0)
	// What a stream begins with that was opened anew. Stops from before it was are not taken in.
	stopped := r.now
	r.n.deafUntil = stopped
	r.now = stopped.Add(-time.Millisecond)
	r.hear("web-1", "start")
	r.now = stopped
	r.hear("web-1", "kill 15", "die", "stop")
	r.want(0)
	r.want(time.Hour)
}

func TestPolicyLeavesAPausedContainerAlone(t *testing.T) {
	r := newRoom(t, nil)
	r.change("pair-1", func(c *ContainerState) { c.Status = "paused" })
	delete(r.containers, "pair-2")
	r.want(0)
	r.want(time.Hour)
	r.change("pair-1", func(c *ContainerState) { c.Status = "running" })
	r.want(0)
	r.want(settleTime, "pair")
}

func TestPolicyNeverRunsAgainWhatEndedByItself(t *testing.T) {
	for _, code := range []int{0, 3} {
		r := newRoom(t, nil)
		r.change("job-1", func(c *ContainerState) { c.ExitCode = code })
		r.want(time.Hour)
		delete(r.containers, "job-1") // as docker container prune does
		r.want(0)
		r.want(time.Hour)
	}
}

func TestPolicyBringsBackWhatEndedWithTheEngine(t *testing.T) {
	r := newRoom(t, nil)
	r.run("job", 1) // runs for as long as it is let
	r.hear("db-1", "kill 15", "die", "stop")
	r.change("db-1", exited)
	for _, h := range r.n.unconfirmed() {
		h.confirmed = true // an operator's: the engine still answered
	}
	r.want(time.Minute)
	before := map[string]ContainerState{}
	for _, c := range r.containers {
		before[c.ID] = c
	}
	r.hear("web-1", "kill 15", "die", "stop")
	r.change("web-1", exited)
	r.want(time.Minute)
	for _, name := range []string{"job-1", "pair-1", "pair-2"} {
		r.change(name, exited)
	}
	after := map[string]ContainerState{}
	for _, c := range r.containers {
		after[c.ID] = c
	}
	r.n.reopened(before, after, r.now)
	r.p.restarted(r.now)
	r.hear("pair-1", "kill 15", "die", "stop") // as the next engine does to what it finds
	r.want(0)
	r.want(settleTime, "job", "pair", "web")
}

func TestPolicyTakesAGapThroughWhichAContainerRanForNoEndOfTheEngine(t *testing.T) {
	r := newRoom(t, nil)
	r.run("job", 1)
	before := map[string]ContainerState{}
	for _, c := range r.containers {
		before[c.ID] = c
	}
	r.hear("web-1", "kill 15", "die", "stop")
	r.change("web-1", exited)
	r.change("job-1", exited) // its work is done
	after := map[string]ContainerState{}
	for _, c := range r.containers {
		after[c.ID] = c
	}
	r.n.reopened(before, after, r.now)
	r.want(0)
	r.want(time.Hour)
}

func TestPolicyRestartsWhatIsUnhealthyWithoutABreak(t *testing.T) {
	r := newRoom(t, nil)
	r.change("pair-2", unhealthy)
	r.want(0)
	r.want(2 * time.Minute)
	r.change("pair-2", healthy)
	r.want(time.Second)
	r.change("pair-2", unhealthy)
	r.want(0)
	r.want(3*time.Minute - time.Millisecond)
	r.want(time.Millisecond, "pair")
	if got := r.p.due(r.now)[0].restart; len(got) != 1 || got[0].Name != "pair-2" {
		t.Errorf("got %v to restart, want pair-2 alone", got)
	}
	r.bringBack(nil)
	r.change("pair-2", func(c *ContainerState) { c.StartedAt, c.Health = r.now, "starting" })
	r.want(time.Minute)
	r.change("pair-2", healthy)
	r.want(time.Second)
	if diff := cmp.Diff([]string{"pair begun", "pair done"}, r.told); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}

	off := newRoom(t, func(c *config.Reconcile) { c.UnhealthyAfter = 0 })
	off.change("web-1", unhealthy)
	off.want(0)
	off.want(time.Hour)
}

func TestPolicyTriesWithGrowingPausesAndGivesUp(t *testing.T) {
	r := newRoom(t, func(c *config.Reconcile) { c.Tries = 5 })
	delete(r.containers, "web-1")
	r.want(0)
	r.want(settleTime, "web")
	begin := r.now
	for _, pause := range []time.Duration{10 * time.Second, 40 * time.Second, 160 * time.Second, 640 * time.Second} {
		r.bringBack(errors.New("no such image"))
		r.want(pause - time.Millisecond)
		r.want(time.Millisecond, "web")
	}
	if got, want := r.now.Sub(begin), 850*time.Second; got != want {
		t.Errorf("got %s from the first to the last try, want %s", got, want)
	}
	r.bringBack(errors.New("no such image"))
	r.want(24 * time.Hour)
	if got := r.told[len(r.told)-2:]; !slices.Equal(got, []string{"web failed", "web given up"}) {
		t.Errorf("told %v at last, want that it was given up", got)
	}

	// Somebody brings it back. Unless it stays for long, there are no tries left.
	r.run("web", 1)
	r.want(time.Second)
	if got := r.told[len(r.told)-1]; got != "web unneeded" {
		t.Errorf("told %q, want that it is back", got)
	}
	r.want(calmTime)
	delete(r.containers, "web-1")
	r.want(0)
	r.want(settleTime, "web")
}

func TestPolicyCountsTriesOnWhileAServiceIsNotUpForLong(t *testing.T) {
	r := newRoom(t, nil)
	for range 3 {
		delete(r.containers, "web-1")
		r.after(0)
		r.want(settleTime, "web")
		r.bringBack(nil)
		r.run("web", 1)
		r.want(time.Second)
		r.want(calmTime - time.Second)
	}
	delete(r.containers, "web-1")
	r.want(0)
	r.want(settleTime)
	if got := r.told[len(r.told)-1]; got != "web given up" {
		t.Errorf("told %q at last, want that it was given up", got)
	}
}

func TestPolicySeesATryFail(t *testing.T) {
	for name, test := range map[string]struct {
		then func(*room)
		wait time.Duration
		want string
	}{
		"gone again":    {func(r *room) { delete(r.containers, "web-1") }, settleTime, "web failed"},
		"ended again":   {func(r *room) { r.change("web-1", exited) }, settleTime, "web failed"},
		"never ready":   {func(r *room) { r.change("web-1", func(c *ContainerState) { c.Health = "starting" }) }, 5 * time.Minute, "web failed"},
		"crash loop":    {func(r *room) { r.change("web-1", func(c *ContainerState) { c.Status = "restarting" }) }, 5 * time.Minute, "web failed"},
		"stopped by us": {func(r *room) { r.hear("web-1", "kill 15", "die", "stop"); r.change("web-1", exited) }, time.Hour, "web begun"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t, nil)
			delete(r.containers, "web-1")
			r.after(0)
			r.after(settleTime)
			r.bringBack(nil)
			r.run("web", 1)
			r.change("web-1", func(c *ContainerState) { c.Health = "starting" })
			r.want(0)
			test.then(r)
			r.want(0)
			r.want(test.wait)
			if got := r.told[len(r.told)-1]; got != test.want {
				t.Errorf("told %v, want %q at last", r.told, test.want)
			}
		})
	}
}

func TestPolicyRunsAnInterruptedOneShotOnceMore(t *testing.T) {
	r := newRoom(t, nil)
	r.change("job-1", exited)
	r.n.interrupted[r.containers["job-1"].ID] = true
	r.want(0)
	r.want(settleTime, "job")
	r.bringBack(nil)
	r.change("job-1", func(c *ContainerState) { c.Status, c.StartedAt = "running", r.now })
	r.want(0)
	r.change("job-1", func(c *ContainerState) { c.Status, c.ExitCode = "exited", 3 })
	r.want(time.Second)
	r.want(time.Hour)
	if diff := cmp.Diff([]string{"job begun", "job failed", "job given up"}, r.told); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

func TestPolicyBringsBackDependenciesFirst(t *testing.T) {
	r := newRoom(t, nil)
	delete(r.containers, "web-1")
	delete(r.containers, "db-1")
	r.want(0)
	r.want(settleTime, "db")
	r.bringBack(nil)
	r.run("db", 1)
	r.change("db-1", func(c *ContainerState) { c.Health = "starting" })
	r.want(time.Minute)
	r.change("db-1", healthy)
	r.want(time.Second, "web")
}

func TestPolicyNeverTouchesWhatIsToBeLeft(t *testing.T) {
	r := newRoom(t, func(c *config.Reconcile) { c.Leave = []string{"web"} })
	delete(r.containers, "web-1")
	r.want(0)
	r.want(time.Hour)
	r.p.cfg.Leave = nil // which a reload may do
	r.want(0, "web")
	r.p.cfg.Tries = 0
	r.want(time.Hour)
}

func TestPolicySaysWhenToLookAgain(t *testing.T) {
	r := newRoom(t, nil)
	delete(r.containers, "web-1")
	r.change("pair-1", unhealthy)
	state := func() State {
		byID := map[string]ContainerState{}
		for c := range maps.Values(r.containers) {
			byID[c.ID] = c
		}
		s, _ := judge{project: r.p.project, now: r.now, settled: true}.state(byID)
		return s
	}
	for _, want := range []time.Duration{settleTime, 3*time.Minute - settleTime, 0} {
		_, wake := r.p.observe(state(), r.n, r.now)
		got := time.Duration(0)
		if !wake.IsZero() {
			got = wake.Sub(r.now)
		}
		if got != want {
			t.Errorf("at %s: got %s, want %s", r.now.Format(time.TimeOnly), got, want)
		}
		r.now = r.now.Add(want)
	}
}

func TestPauseIsSpread(t *testing.T) {
	for _, test := range []struct {
		tries  int
		random float64
		want   time.Duration
	}{{1, 0, 8 * time.Second}, {1, 0.5, 10 * time.Second}, {1, 1, 12 * time.Second}, {4, 0.5, 640 * time.Second}, {5, 0.5, longestPause}, {100, 0.5, longestPause}} {
		p := policy{random: func() float64 { return test.random }}
		if got := p.pause(test.tries).Round(time.Millisecond); got != test.want {
			t.Errorf("after %d tries with %v: got %s, want %s", test.tries, test.random, got, test.want)
		}
	}
}

func TestWhatTheAgentStopsItselfIsNotStoppedOnPurpose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t, nil)
		var own changes
		r.n.mine = own.covers
		at := func() { r.now = time.Now() }
		at()
		end := own.begin("web")
		time.Sleep(time.Second)
		at()
		r.hear("web-1", "kill 15", "die", "stop", "destroy")
		r.hear("db-1", "kill 15", "die", "stop")
		time.Sleep(time.Second)
		end()
		if r.n.holds("web") || !r.n.holds("db") {
			t.Errorf("got web on purpose %v and db %v, want db alone", r.n.holds("web"), r.n.holds("db"))
		}
		time.Sleep(time.Second)
		at()
		r.hear("web-1", "kill 15", "die", "stop")
		if !r.n.holds("web") {
			t.Error("a stop after the agent's own change isn't taken for one on purpose")
		}
		time.Sleep(2 * changesKept)
		own.begin("pair")()
		if len(own.all) != 1 {
			t.Errorf("got %d changes remembered, want the last alone", len(own.all))
		}
	})
}
