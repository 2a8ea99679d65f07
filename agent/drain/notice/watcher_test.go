package notice

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/node"
	"github.com/flowviz/flowagent/test/lab"
)

const (
	statePath       = "autoscaling/target-lifecycle-state"
	spotPath        = "spot/instance-action"
	rebalancePath   = "events/recommendations/rebalance"
	maintenancePath = "events/maintenance/scheduled"
)

// service is a metadata service that remembers who asked it when, and can be told to misbehave.
type service struct {
	began time.Time

	mu       sync.Mutex
	answers  map[string]string        // by path; others aren't found
	refusals map[string]error         // by path
	delays   map[string]time.Duration // by path; forever hangs until the question is given up
	asked    []asked
	inFlight int
	most     int // questions at the same time
}

type asked struct {
	path string
	at   time.Duration // since the service began
	took time.Duration
}

const forever = time.Duration(-1)

func newService() *service {
	return &service{began: time.Now(), answers: map[string]string{}, refusals: map[string]error{}, delays: map[string]time.Duration{}}
}

func (s *service) Get(ctx context.Context, path string) (string, bool, error) {
	s.mu.Lock()
	s.inFlight++
	s.most = max(s.most, s.inFlight)
	delay, at := s.delays[path], time.Since(s.began)
	s.mu.Unlock()
	var late <-chan time.Time
	if delay != forever {
		late = time.After(delay)
	}
	var err error
	select {
	case <-late:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inFlight--
	s.asked = append(s.asked, asked{path, at, time.Since(s.began) - at})
	if err == nil {
		err = s.refusals[path]
	}
	if err != nil {
		return "", false, err
	}
	answer, found := s.answers[path]
	return answer, found, nil
}

// set changes what the service knows of a path; "404" makes it know nothing.
func (s *service) set(path, answer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers[path] = answer
	if answer == "404" {
		delete(s.answers, path)
	}
}

// refuse makes paths fail, or with nil work again.
func (s *service) refuse(err error, paths ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, path := range paths {
		s.refusals[path] = err
	}
}

func (s *service) slow(d time.Duration, paths ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, path := range paths {
		s.delays[path] = d
	}
}

func (s *service) questions(path string) (found []asked) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.asked {
		if path == "" || a.path == path {
			found = append(found, a)
		}
	}
	return found
}

// period is from one look at the state to the next, and round one turn for everybody.
const (
	period = defaultInterval + defaultInterval/80
	round  = time.Duration(len(turns)) * period
)

var everyPath = []string{statePath, spotPath, rebalancePath, maintenancePath}

// seen is what a watcher emitted and logged.
type seen struct {
	*Watcher
	log   syncBuffer
	mu    sync.Mutex
	all   []Notice
	times []time.Time
}

type syncBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

// forget empties the log.
func (b *syncBuffer) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.Reset()
}

// lines returns the logged events with this message in them.
func (s *seen) lines(message string) (found []string) {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	for line := range strings.Lines(s.log.String()) {
		if strings.Contains(line, message) {
			found = append(found, line)
		}
	}
	return found
}

// take returns the notices since the last call.
func (s *seen) take() []Notice {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := s.all
	s.all = nil
	return taken
}

// watch runs the watcher of a spot instance until the test ends.
func watch(t *testing.T, getter Getter) *seen {
	t.Helper()
	return watchOn(t, getter, Options{})
}

func watchOn(t *testing.T, getter Getter, o Options) *seen {
	t.Helper()
	s := &seen{}
	o.Log = slog.New(slog.NewTextHandler(&s.log, nil))
	s.Watcher = New(getter, o)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Run(ctx, func(n Notice) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.all, s.times = append(s.all, n), append(s.times, time.Now())
		})
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return s
}

// pass lets so much time pass, and all that happens in it happen.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// wantIDs expects the notices since the last look.
func wantIDs(t *testing.T, s *seen, want ...string) {
	t.Helper()
	var got []string
	for _, n := range s.take() {
		got = append(got, n.ID)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("notices (-want +got):\n%s", diff)
	}
}

func TestWatcher_AsksTheStateInEachPeriodAndTheOthersInBetween(t *testing.T) {
	const rounds = 120 // two of the questions about maintenance
	for _, c := range []struct {
		kept   bool
		others int // questions in those rounds, but for the state's
	}{
		{kept: true, others: 2},
		{kept: false, others: rounds + rounds/3 + 2},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newService()
			watchOn(t, s, Options{Kept: c.kept})
			pass(rounds*round - time.Millisecond)
			var got, want []string
			for _, a := range s.questions("") {
				got = append(got, fmt.Sprint(a.at, " ", a.path))
			}
			expect := func(at time.Duration, path string) { want = append(want, fmt.Sprint(at, " ", path)) }
			for r := range rounds {
				begin := time.Duration(r) * round
				expect(begin, statePath)
				if !c.kept {
					expect(begin+period/2, spotPath)
				}
				expect(begin+period, statePath)
				expect(begin+2*period, statePath)
				if !c.kept && r%3 == 0 {
					expect(begin+2*period+period/2, rebalancePath)
				}
				expect(begin+3*period, statePath)
				expect(begin+4*period, statePath)
				if r%60 == 6 {
					expect(begin+4*period+period/2, maintenancePath)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("kept %t: questions (-want +got):\n%s", c.kept, diff)
			}
			if others := len(got) - len(s.questions(statePath)); others != c.others {
				t.Errorf("kept %t: %d questions beside those about the state, want %d", c.kept, others, c.others)
			}
		})
	}
}

func TestWatcher_CostsAtMostOneRequestInTwoSecondsTokensIncluded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const watched, token = time.Hour, 5 * time.Minute // the AWS SDK's own lifetime of a token
		s := newService()
		watchOn(t, s, Options{Kept: true})
		pass(watched - time.Millisecond)
		requests := time.Duration(len(s.questions("")) + int(watched/token))
		if requests*defaultInterval > watched {
			t.Errorf("%d requests in %s", requests, watched)
		}
	})
}

func TestWatcher_TellsOfATerminationWithinOneIntervalWheneverItComes(t *testing.T) {
	for offset := time.Millisecond; offset < period; offset += 111 * time.Millisecond {
		for _, hanging := range [][]string{nil, {spotPath, rebalancePath, maintenancePath}} {
			synctest.Test(t, func(t *testing.T) {
				s := newService()
				s.set(statePath, InService)
				s.slow(forever, hanging...)
				w := watch(t, s)
				pass(10*time.Second + offset)
				wantIDs(t, w, "lifecycle/InService")
				changed := time.Now()
				s.set(statePath, Terminated)
				pass(time.Minute)
				got := w.take()
				if diff := cmp.Diff([]Notice{{Kind: Terminate, ID: "lifecycle/Terminated", Detail: "Terminated"}}, got); diff != "" {
					t.Fatalf("notices (-want +got):\n%s", diff)
				}
				if late := w.times[1].Sub(changed); late > period {
					t.Errorf("told %s after the change, want at most %s", late, period)
				}
			})
		}
	}
}

func TestWatcher_TheFirstLookCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService()
		s.set(statePath, Terminated)
		w := watch(t, s)
		synctest.Wait()
		wantIDs(t, w, "lifecycle/Terminated")
		if w.State() != Terminated {
			t.Errorf("State = %q, want Terminated", w.State())
		}
		pass(time.Hour)
		wantIDs(t, w)
	})
}

func TestWatcher_UnknownIsNoNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService()
		w := watch(t, s)
		pass(5 * time.Minute) // a group that is slow to tell
		wantIDs(t, w)
		if w.State() != "" {
			t.Errorf("State = %q, want none", w.State())
		}
		for _, step := range []struct {
			answer string
			want   []string
			state  string
		}{
			{InService, []string{"lifecycle/InService"}, InService},
			{"404", nil, InService},
			{InService, nil, InService},
			{"", nil, InService},
			{Standby, []string{"lifecycle/Standby"}, Standby},
			{"404", nil, Standby},
			{"Terminating", nil, Standby},
			{InService, []string{"lifecycle/InService"}, InService}, // back, which is news
			{Standby, []string{"lifecycle/Standby"}, Standby},
			{Detached, []string{"lifecycle/Detached"}, Detached},
			{Terminated, []string{"lifecycle/Terminated"}, Terminated},
			{"404", nil, Terminated},
			{Terminated, nil, Terminated},
		} {
			s.set(statePath, step.answer)
			pass(period)
			wantIDs(t, w, step.want...)
			if w.State() != step.state {
				t.Errorf("State after %q = %q, want %q", step.answer, w.State(), step.state)
			}
		}
		if got := w.lines("level=WARN"); len(got) != 1 || !strings.Contains(got[0], "value=Terminating") {
			t.Errorf("logged %q, want the unknown state alone", got)
		}
	})
}

func TestWatcher_AWarmPoolsStatesAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService()
		w := watch(t, s)
		for _, state := range []string{WarmedRunning, WarmedStopped, InService, WarmedHibernated, WarmedTerminated} {
			s.set(statePath, state)
			pass(period)
			want := []Notice{{Kind: Lifecycle, ID: "lifecycle/" + state, Detail: state}}
			if diff := cmp.Diff(want, w.take()); diff != "" {
				t.Errorf("notices (-want +got):\n%s", diff)
			}
		}
	})
}

func TestWatcher_AnAnnouncementComesOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const (
			spot      = `{"action": "terminate", "time": "2026-11-24T08:22:00Z"}`
			sameSpot  = `{"time":"2026-11-24T08:22:00+00:00","action":"terminate","more":true}`
			later     = `{"action": "terminate", "time": "2026-11-24T08:24:00Z"}`
			gentler   = `{"action": "stop", "time": "2026-11-24T08:24:00Z"}`
			rebalance = `{"noticeTime": "2026-11-24T08:20:00Z"}`
			again     = `{"noticeTime": "2026-11-24T08:21:00Z"}`
		)
		moved := strings.ReplaceAll(reboot, "3 Feb", "4 Feb")
		two := strings.TrimSuffix(moved, "]") + "," + strings.TrimPrefix(strings.Replace(reboot, "event-01", "event-02", 1), "[")
		s := newService()
		w := watch(t, s)
		for _, step := range []struct {
			path, answer string
			want         []string
		}{
			{spotPath, spot, []string{"spot/terminate/2026-11-24T08:22:00Z"}},
			{spotPath, sameSpot, nil},
			{spotPath, "404", nil},
			{spotPath, spot, nil},
			{spotPath, later, []string{"spot/terminate/2026-11-24T08:24:00Z"}},
			{spotPath, gentler, []string{"spot/stop/2026-11-24T08:24:00Z"}},
			{spotPath, spot, nil},
			{rebalancePath, rebalance, []string{"rebalance/2026-11-24T08:20:00Z"}},
			{rebalancePath, "", nil},
			{rebalancePath, rebalance, nil},
			{rebalancePath, again, []string{"rebalance/2026-11-24T08:21:00Z"}},
			{maintenancePath, "[]", nil},
			{maintenancePath, reboot, []string{rebootNotice.ID}},
			{maintenancePath, strings.Replace(reboot, "active", "completed", 1), nil},
			{maintenancePath, reboot, nil},
			{maintenancePath, moved, []string{"maintenance/instance-event-01/2027-02-04T09:00:43Z"}},
			{maintenancePath, two, []string{"maintenance/instance-event-02/2027-02-03T09:00:43Z"}},
		} {
			s.set(step.path, step.answer)
			pass(60 * round)
			wantIDs(t, w, step.want...)
			pass(60 * round)
			wantIDs(t, w)
		}
		if got := w.lines(""); len(got) != 0 {
			t.Errorf("logged %q, want nothing", got)
		}
	})
}

func TestWatcher_ADeadServiceIsOneEventAndItsReturnAnother(t *testing.T) {
	for name, fail := range map[string]func(*service){
		"errors": func(s *service) { s.refuse(errors.New("connection refused"), everyPath...) },
		"hangs":  func(s *service) { s.slow(forever, everyPath...) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newService()
				s.set(statePath, InService)
				w := watch(t, s)
				for range 3 {
					// Within a turn of its own each time.
					pass(13*time.Second + 500*time.Millisecond)
					w.take()
					w.log.forget()
					fail(s)
					pass(time.Hour)
					if got := w.lines("level=WARN"); len(got) != 1 || !strings.Contains(got[0], "path=") {
						t.Errorf("logged %q, want one warning in an hour", got)
					}
					wantIDs(t, w)
					if w.State() == "" {
						t.Error("the last known state is forgotten")
					}
					s.slow(0, everyPath...)
					s.refuse(nil, everyPath...)
					pass(11 * time.Second)
					if got := w.lines("level=INFO"); len(got) != 1 || !strings.Contains(got[0], "elapsed=1h0m") && !strings.Contains(got[0], "elapsed=59m58") {
						t.Errorf("logged %q, want that it answers again", got)
					}
					if got := w.lines(""); len(got) != 2 {
						t.Errorf("logged %q, want two events", got)
					}
				}
				s.set(statePath, Terminated)
				pass(period)
				wantIDs(t, w, "lifecycle/Terminated")
			})
		})
	}
}

func TestWatcher_APathThatFailsAloneHidesNoOtherFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService()
		s.set(statePath, InService)
		s.refuse(errors.New("403"), spotPath)
		w := watch(t, s)
		pass(time.Minute)
		if got := w.lines("level=WARN"); len(got) != 1 || !strings.Contains(got[0], spotPath) {
			t.Errorf("logged %q, want the spot path alone", got)
		}
		s.refuse(errors.New("500"), statePath)
		pass(time.Minute)
		if got := w.lines("level=WARN"); len(got) != 2 || !strings.Contains(got[1], statePath) {
			t.Errorf("logged %q, want the state's path as well", got)
		}
	})
}

func TestWatcher_NothingPilesUpBehindASlowService(t *testing.T) {
	for _, delay := range []time.Duration{500 * time.Millisecond, 1100 * time.Millisecond, 1700 * time.Millisecond, 5 * time.Second, forever} {
		t.Run(fmt.Sprint(delay), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newService()
				s.slow(delay, everyPath...)
				s.set(statePath, Terminated)
				w := watch(t, s)
				pass(6*round - time.Millisecond)
				if s.most != 1 {
					t.Errorf("%d questions at once, want 1", s.most)
				}
				looks := s.questions(statePath)
				for i, a := range looks {
					if want := time.Duration(i) * period; a.at != want {
						t.Errorf("look %d came at %s, want %s", i, a.at, want)
					}
				}
				if len(looks) != 30 {
					t.Errorf("%d looks at the state in six rounds, want 30", len(looks))
				}
				for _, a := range s.questions("") {
					if a.took >= period {
						t.Errorf("a question for %s was waited for %s", a.path, a.took)
					}
				}
				if delay > 0 && delay < 1800*time.Millisecond {
					wantIDs(t, w, "lifecycle/Terminated") // slow, and an answer all the same
				} else {
					wantIDs(t, w)
				}
			})
		})
	}
}

func TestWatcher_ASlowStateKeepsTheOthersTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService()
		s.slow(1700*time.Millisecond, statePath)
		watch(t, s)
		pass(3 * round)
		if got := len(s.questions("")) - len(s.questions(statePath)); got != 0 {
			t.Fatalf("%d questions in between, want none without time for an answer", got)
		}
		s.slow(0, statePath)
		pass(period + round) // one look that is slow still, then five turns
		for _, path := range []string{spotPath, rebalancePath} {
			if got := len(s.questions(path)); got != 1 {
				t.Errorf("%s was asked for %d times, want once", path, got)
			}
		}
	})
}

func TestWatcher_AStateThatHangsHidesNoSpotNotice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService()
		s.slow(forever, statePath)
		s.set(spotPath, `{"action": "stop", "time": "2026-11-24T08:22:00Z"}`)
		s.set(rebalancePath, `{"noticeTime": "2026-11-24T08:20:00Z"}`)
		s.set(maintenancePath, reboot)
		w := watch(t, s)
		pass(20 * round) // every other look takes a turn
		wantIDs(t, w, "spot/stop/2026-11-24T08:22:00Z", "rebalance/2026-11-24T08:20:00Z", rebootNotice.ID)
		if s.most != 1 {
			t.Errorf("%d questions at once, want 1", s.most)
		}
	})
}

func TestWatcher_WhatItDoesNotUnderstandIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService()
		w := watch(t, s)
		for range 3 {
			for path, answers := range map[string][]string{
				statePath:       {"Terminating:Wait", "Warmed:Melted"},
				spotPath:        {"<html>", `{"action": "explode"}`, "{"},
				rebalancePath:   {"[]"},
				maintenancePath: {`[{"State": "paused"}]`},
			} {
				for _, answer := range answers {
					s.set(path, answer)
					pass(11 * time.Minute)
				}
			}
		}
		wantIDs(t, w)
		if got := w.lines("level=WARN"); len(got) != 6 { // two states, spot's JSON and action, rebalance's JSON, a stage
			t.Errorf("%d events, want 6:\n%s", len(got), strings.Join(got, ""))
		}
		s.set(spotPath, `{"action": "stop", "time": "2026-11-24T08:22:00Z"}`)
		pass(round)
		wantIDs(t, w, "spot/stop/2026-11-24T08:22:00Z")
	})
}

func TestWatcher_AServiceThatInventsAnnouncementsFillsNoMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService()
		w := watch(t, s)
		for i := range 2 * memory {
			at := s.began.Add(time.Duration(i) * time.Second).UTC().Format(time.RFC3339)
			s.set(spotPath, `{"action": "stop", "time": "`+at+`"}`)
			s.set(statePath, fmt.Sprint("State", i))
			pass(round)
		}
		if got := len(w.take()); got != 2*memory {
			t.Errorf("%d notices, want %d", got, 2*memory)
		}
		if len(w.told) != memory || len(w.doubted) != memory {
			t.Errorf("remembers %d notices and %d words, want %d", len(w.told), len(w.doubted), memory)
		}
	})
}

func TestWatcher_AMachineThatStoodStillMakesNoPollsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService()
		s.set(statePath, InService)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			New(s, Options{}).Run(ctx, func(Notice) { <-time.After(7 * time.Minute) })
		}()
		pass(7*time.Minute + 9*time.Second)
		var late []time.Duration
		for _, a := range s.questions(statePath) {
			late = append(late, a.at-7*time.Minute)
		}
		want := []time.Duration{-7 * time.Minute, 0, period, 2 * period, 3 * period, 4 * period}
		if !slices.Equal(late, want) {
			t.Errorf("looks at %v, want %v", late, want)
		}
		cancel()
		<-ended
	})
}

func TestWatcher_EndsAtOnceAndSilently(t *testing.T) {
	for name, prepare := range map[string]func(*service){
		"between questions": func(*service) {},
		"during a question": func(s *service) { s.slow(forever, everyPath...) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newService()
				var log bytes.Buffer
				w := New(s, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
				prepare(s)
				ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
				defer cancel()
				w.Run(ctx, func(n Notice) { t.Errorf("emitted %+v", n) })
				if took := time.Since(s.began); took != 300*time.Millisecond {
					t.Errorf("ended after %s, want 300 ms", took)
				}
				if log.Len() != 0 {
					t.Errorf("logged %s", &log)
				}
			})
		})
	}
}

// metadata asks a mock with this configuration.
func metadata(t *testing.T, configuration string) *node.Metadata {
	t.Helper()
	_, client, err := node.Discover(t.Context(), config.Node{Provider: config.ProviderEC2}, node.Options{
		SysRoot: t.TempDir(), MetadataEndpoint: lab.MetadataMock(t, configuration),
	})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// answered runs a watcher on a real client until every path was answered twice, and returns its notices by id.
func answered(t *testing.T, client *node.Metadata) []Notice {
	t.Helper()
	counted := &counter{Getter: client, left: map[string]int{}, enough: make(chan struct{})}
	for _, path := range everyPath {
		counted.left[path] = 2 // the second answer is there to be known already
	}
	counted.left[maintenancePath] = 1 // a second one takes sixty rounds
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got []Notice
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		New(counted, Options{Interval: 200 * time.Millisecond}).Run(ctx, func(n Notice) { got = append(got, n) })
	}()
	<-counted.enough
	cancel()
	<-ended
	// On a busy machine a question may have to wait for its next turn.
	slices.SortFunc(got, func(a, b Notice) int { return strings.Compare(a.ID, b.ID) })
	return got
}

// counter tells when the watcher has dealt with enough answers from every path. It asks one question at a time, so it is done
// with an answer once it asks the next one.
type counter struct {
	Getter
	left   map[string]int // answers still to come, by path
	enough chan struct{}  // closed with the first question after the last of them
	once   sync.Once
}

func (c *counter) Get(ctx context.Context, path string) (string, bool, error) {
	if len(c.left) == 0 {
		c.once.Do(func() { close(c.enough) })
	}
	value, found, err := c.Getter.Get(ctx, path)
	if left, open := c.left[path]; err == nil && open {
		if c.left[path] = left - 1; left == 1 {
			delete(c.left, path)
		}
	}
	return value, found, err
}

func TestWatcher_SeesAllThatTheMetadataMockAnnounces(t *testing.T) {
	got := answered(t, metadata(t, `{
		"spot": {"action": "hibernate", "time": "2027-02-03T08:22:00Z", "rebalance-rec-time": "2027-02-03T08:20:00Z"},
		"events": {"code": "system-reboot", "state": "active", "not-before": "2027-02-03T09:00:43Z", "not-after": "2027-02-03T09:17:23Z"},
		"metadata": {"values": {"event-id": "instance-event-01"}}}`))
	want := []Notice{
		{Kind: Terminate, ID: "lifecycle/Terminated", Detail: "Terminated"},
		rebootNotice,
		{Kind: Rebalance, ID: "rebalance/2027-02-03T08:20:00Z", Detail: "recommended at 2027-02-03T08:20:00Z"},
		{Kind: Spot, ID: "spot/hibernate/2027-02-03T08:22:00Z", At: time.Date(2027, 2, 3, 8, 22, 0, 0, time.UTC), Detail: "hibernate"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("notices (-want +got):\n%s", diff)
	}
}

// The mock knows no state but InService and Terminated, so another value of it is served at the state's path.
func TestWatcher_SeesAWarmPoolAndNothingElseInTheMetadataMock(t *testing.T) {
	got := answered(t, metadata(t, `{"metadata": {
		"paths": {"target-lifecycle-state": "/latest/meta-data/unused/1", "spot": "/latest/meta-data/unused/2",
			"rebalance-rec-time": "/latest/meta-data/unused/3", "events": "/latest/meta-data/unused/4",
			"kernel-id": "/latest/meta-data/autoscaling/target-lifecycle-state"},
		"values": {"kernel-id": "Warmed:Stopped"}}}`))
	want := []Notice{{Kind: Lifecycle, ID: "lifecycle/Warmed:Stopped", Detail: "Warmed:Stopped"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("notices (-want +got):\n%s", diff)
	}
}
