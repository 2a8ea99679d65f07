package notify_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flowviz/flowagent/agent/notify"
)

var quiet = stdlog.New(io.Discard, "", 0)

// receiver is a sink that writes down what it is sent.
type receiver struct {
	name string

	mu    sync.Mutex
	tries []try
	fault func(ctx context.Context, number int) error // of the n-th try, from 1; nil for none
}

type try struct {
	id string
	at time.Time
	ok bool
}

func (r *receiver) Name() string { return r.name }

func (r *receiver) Send(ctx context.Context, e notify.Event) error {
	r.mu.Lock()
	r.tries = append(r.tries, try{id: e.ID, at: time.Now()})
	number := len(r.tries)
	fault := r.fault
	r.mu.Unlock()
	if fault == nil {
		fault = func(context.Context, int) error { return nil }
	}
	err := fault(ctx, number)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tries[number-1].ok = err == nil
	return err
}

// delivered are the ids that arrived, in order.
func (r *receiver) delivered() (ids []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range r.tries {
		if t.ok {
			ids = append(ids, t.id)
		}
	}
	return ids
}

func (r *receiver) all() []try {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.tries)
}

func hang(ctx context.Context, _ int) error {
	<-ctx.Done()
	return ctx.Err()
}

func always(err error) func(context.Context, int) error {
	return func(context.Context, int) error { return err }
}

var errDown = errors.New("the receiver is down")

// post is a notifier that runs, with what it counted and logged.
type post struct {
	*notify.Notifier
	stop func()

	mu     sync.Mutex
	counts map[string]int
	log    bytes.Buffer
}

func (p *post) Write(line []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(line)
}

func (p *post) lines(text string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Count(p.log.String(), text)
}

func (p *post) count(sink string, result notify.Result) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts[sink+" "+string(result)]
}

func open(t *testing.T, random float64, receivers ...*receiver) *post {
	t.Helper()
	p := &post{counts: map[string]int{}}
	var sinks []notify.Sink
	for _, r := range receivers {
		sinks = append(sinks, r)
	}
	p.Notifier = notify.New(notify.Options{
		Sinks: sinks, Log: slog.New(slog.NewTextHandler(p, nil)), Random: func() float64 { return random },
		Count: func(sink string, result notify.Result) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.counts[sink+" "+string(result)]++
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); p.Run(ctx) }()
	p.stop = func() { cancel(); <-ended }
	t.Cleanup(p.stop)
	return p
}

func ready() notify.Detail { return notify.Detail{Boot: &notify.Boot{Seconds: 1}} }

// made is an event as a notifier makes it.
func made(t *testing.T, origin notify.Origin, kind notify.Type, detail notify.Detail) notify.Event {
	t.Helper()
	var got notify.Event
	ctx, cancel := context.WithCancel(t.Context())
	n := notify.New(notify.Options{Origin: origin, Sinks: []notify.Sink{catch(func(e notify.Event) { got = e; cancel() })}})
	n.Tell(kind, detail)
	n.Run(ctx)
	return got
}

type catch func(notify.Event)

func (catch) Name() string { return "catch" }

func (c catch) Send(_ context.Context, e notify.Event) error { c(e); return nil }

// pass lets so much time pass, and all that happens in it happen.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestNotifier_DeliversInOrderToEachSinkAndOneDoesNotWaitForAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		good, bad := &receiver{name: "good"}, &receiver{name: "bad", fault: hang}
		p := open(t, 1, good, bad)
		for range 5 {
			p.Tell(notify.NodeReady, ready())
		}
		pass(0)
		ids := good.delivered()
		if len(ids) != 5 || len(slices.Compact(slices.Sorted(slices.Values(ids)))) != 5 {
			t.Errorf("got %v, want five events, each with an id of its own", ids)
		}
		if got := len(bad.all()); got != 1 {
			t.Errorf("the sink that hangs was tried %d times at once, want once", got)
		}
		bad.mu.Lock()
		bad.fault = nil
		bad.mu.Unlock()
		p.stop()
		if got := p.count("good", notify.Delivered); got != 5 {
			t.Errorf("counted %d delivered, want 5", got)
		}
		if got := p.count("bad", notify.Dropped); got != 5 {
			t.Errorf("counted %d dropped of the sink that hangs to the end, want 5", got)
		}
	})
}

func TestNotifier_TriesAgainWithGrowingPausesUnderTheSameIDAndKeepsTheOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{name: "hook", fault: func(_ context.Context, number int) error {
			if number <= 8 {
				return errDown
			}
			return nil
		}}
		p := open(t, 1, r) // the longest pauses
		began := time.Now()
		p.Tell(notify.NodeReady, ready())
		p.Tell(notify.NodeDrainStarted, notify.Detail{})
		pass(10 * time.Minute)
		var after []time.Duration
		tries := r.all()
		for _, try := range tries {
			after = append(after, try.at.Sub(began))
		}
		seconds := func(s ...int) (d []time.Duration) {
			for _, each := range s {
				d = append(d, time.Duration(each)*time.Second)
			}
			return d
		}
		// 1, 2, 4 … 60 s apart; the second event follows the first at once.
		if diff := cmp.Diff(seconds(0, 1, 3, 7, 15, 31, 63, 123, 183, 183), after); diff != "" {
			t.Fatalf("tries (-want +got):\n%s", diff)
		}
		for i, try := range tries[:9] {
			if try.id != tries[0].id {
				t.Errorf("try %d has another id", i)
			}
		}
		if tries[9].id == tries[0].id {
			t.Error("two events have one id")
		}
		if warned, again := p.lines("notifications don't arrive"), p.lines("notifications arrive again"); warned != 1 || again != 1 {
			t.Errorf("the log has %d warnings and %d ends of them, want one of each:\n%s", warned, again, &p.log)
		}
	})
}

func TestNotifier_NodesThatFailTogetherDoNotTryTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, random := range []float64{0.25, 0.5} {
			r := &receiver{name: "hook", fault: always(errDown)}
			p := open(t, random, r)
			p.Tell(notify.NodeReady, ready())
			pass(time.Second)
			tries := r.all()
			if got, want := tries[1].at.Sub(tries[0].at), time.Duration(random*float64(time.Second)); got != want {
				t.Errorf("with %v: the second try came after %v, want %v", random, got, want)
			}
			p.stop()
		}
	})
}

func TestNotifier_GivesUpAnEventThatIsAQuarterOfAnHourOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{name: "hook", fault: always(errDown)}
		p := open(t, 1, r)
		for range 30 {
			p.Tell(notify.NodeNoticeReceived, notify.Detail{})
		}
		pass(14 * time.Minute)
		if got := p.count("hook", notify.Failed); got != 0 {
			t.Errorf("after 14 minutes %d are given up", got)
		}
		pass(2 * time.Minute)
		if got := p.count("hook", notify.Failed); got != 30 {
			t.Errorf("after 16 minutes %d are given up, want all 30", got)
		}
		if got := p.lines("notification lost"); got != 1 {
			t.Errorf("the log says %d times within a minute that events are lost, want once:\n%s", got, &p.log)
		}
		pass(time.Hour)
		p.Tell(notify.NodeReady, ready())
		pass(16 * time.Minute)
		if got := p.lines("notification lost"); got != 2 || p.lines("others=29") != 1 {
			t.Errorf("the log says %d times that events are lost, want once more, with the 29 that were not said:\n%s", got, &p.log)
		}
	})
}

func TestNotifier_DoesNotRepeatWhatIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{name: "hook", fault: func(_ context.Context, number int) error {
			if number == 1 {
				return &notify.Refused{Err: errDown}
			}
			return nil
		}}
		p := open(t, 1, r)
		p.Tell(notify.NodeReady, ready())
		p.Tell(notify.NodeDrainStarted, notify.Detail{})
		pass(0)
		if tries, arrived := r.all(), r.delivered(); len(tries) != 2 || len(arrived) != 1 || arrived[0] != tries[1].id {
			t.Errorf("got tries %v, want one for each, and the second delivered", tries)
		}
		if p.count("hook", notify.Failed) != 1 || p.count("hook", notify.Delivered) != 1 {
			t.Errorf("counted %v, want one failed and one delivered", p.counts)
		}
	})
}

func TestNotifier_WaitsAsLongAsItIsAskedToButNotForHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for asked, want := range map[time.Duration]time.Duration{20 * time.Second: 20 * time.Second, time.Hour: time.Minute} {
			r := &receiver{name: "hook", fault: always(&notify.Later{After: asked, Err: errDown})}
			p := open(t, 0.001, r)
			p.Tell(notify.NodeReady, ready())
			pass(2 * time.Minute)
			tries := r.all()
			if got := tries[1].at.Sub(tries[0].at); got != want {
				t.Errorf("asked for %v: got %v, want %v", asked, got, want)
			}
			p.stop()
		}
	})
}

func TestNotifier_AFullQueueDropsTheNewestAndHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{name: "hook", fault: hang}
		p := open(t, 1, r)
		p.Tell(notify.NodeReady, ready())
		synctest.Wait() // one is under way
		began := time.Now()
		for range 70 {
			p.Tell(notify.NodeNoticeReceived, notify.Detail{})
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("telling took %v", took)
		}
		if got := p.count("hook", notify.Dropped); got != 6 {
			t.Errorf("counted %d dropped, want the 6 for which there is no room", got)
		}
	})
}

func TestNotifier_TheEndWaitsForWhatIsLeftButFiveSecondsAtMost(t *testing.T) {
	for name, c := range map[string]struct {
		fault   func(context.Context, int) error
		took    time.Duration
		results map[string]int
	}{
		"nothing is wrong": {nil, 0, map[string]int{"hook delivered": 3}},
		"the receiver comes back": {func(_ context.Context, number int) error {
			if number < 4 {
				return errDown
			}
			return nil
		}, 3 * time.Second, map[string]int{"hook delivered": 3}}, // three pauses of a second at most
		"the receiver hangs":    {hang, 5 * time.Second, map[string]int{"hook dropped": 3}},
		"the receiver is down":  {always(errDown), 5 * time.Second, map[string]int{"hook dropped": 3}},
		"the receiver refuses":  {always(&notify.Refused{Err: errDown}), 0, map[string]int{"hook failed": 3}},
		"the receiver is slow":  {func(context.Context, int) error { <-time.After(2 * time.Second); return nil }, 6 * time.Second, map[string]int{"hook delivered": 3}},
		"the receiver is asked": {always(&notify.Later{After: time.Hour, Err: errDown}), 5 * time.Second, map[string]int{"hook dropped": 3}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &receiver{name: "hook", fault: c.fault}
				p := open(t, 1, r)
				for range 3 {
					p.Tell(notify.NodeDrainEnded, notify.Detail{})
				}
				synctest.Wait() // the first try is made or under way
				asked := time.Now()
				p.stop()
				if took := time.Since(asked); took != c.took {
					t.Errorf("the end took %v, want %v", took, c.took)
				}
				if diff := cmp.Diff(c.results, p.counts); diff != "" {
					t.Errorf("counts (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestNotifier_NobodyToTellCostsNothing(t *testing.T) {
	var none *notify.Notifier
	none.Tell(notify.NodeReady, ready()) // the node before it knows its configuration
	notify.New(notify.Options{}).Tell(notify.NodeReady, ready())
}

func TestEvent_HasEventBridgesShape(t *testing.T) {
	e := drained(t)
	if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(e.ID) {
		t.Errorf("got the id %q, want a UUID of version 4", e.ID)
	}
	if e.Time.Location() != time.UTC || e.Time.Nanosecond() != 0 || time.Since(e.Time) > time.Hour {
		t.Errorf("got the time %v, want now, in UTC and to the second", e.Time)
	}
	at := e.Time
	e.ID, e.Detail.EventID, e.Time = "ID", "ID", time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)
	want := `{"version":"0","id":"ID","detail-type":"Flowagent Node Drain Ended","source":"flowagent","account":"123456789012",` +
		`"time":"2026-11-24T08:00:00Z","region":"us-east-1","resources":["arn:aws:ec2:us-east-1:123456789012:instance/i-0123456789abcdef0"],` +
		`"detail":{"eventId":"ID","node":{"instanceId":"i-0123456789abcdef0","hostname":"web-1","agentVersion":"1.2.3"},` +
		`"drain":{"reason":"spot","trigger":"spot","started":"0001-01-01T00:00:00Z","deadline":"0001-01-01T00:00:00Z","result":"failed","seconds":12.5,"failedSteps":["edge"]}}}`
	if got := encoded(t, e); got != want {
		t.Errorf("made at %v: got\n%s\nwant\n%s", at, got, want)
	}
}

func TestEvent_NamesTheInstanceInItsPartOfAWS(t *testing.T) {
	for region, partition := range map[string]string{
		"eu-central-1": "aws", "us-gov-west-1": "aws-us-gov", "cn-north-1": "aws-cn", "eusc-de-east-1": "aws-eusc", "us-isob-east-1": "aws-iso-b",
	} {
		e := made(t, notify.Origin{Account: "123456789012", Region: region, Node: notify.Node{InstanceID: "i-1"}}, notify.NodeReady, ready())
		if want := []string{fmt.Sprintf("arn:%s:ec2:%s:123456789012:instance/i-1", partition, region)}; !slices.Equal(e.Resources, want) {
			t.Errorf("got %v, want %v", e.Resources, want)
		}
	}
	e := made(t, notify.Origin{Node: notify.Node{Hostname: "factory-7"}}, notify.NodeReady, ready())
	if got := encoded(t, e); !strings.Contains(got, `"account":"","`) || !strings.Contains(got, `"resources":[]`) {
		t.Errorf("outside EC2: got %s, want no account and no resource", got)
	}
}

func TestEvent_ALongErrorIsCut(t *testing.T) {
	long := strings.Repeat("ä", 5000)
	detail := notify.Detail{Boot: &notify.Boot{Error: long}}
	e := made(t, notify.Origin{}, notify.NodeBootFailed, detail)
	if got := e.Detail.Boot.Error; len(got) > 1010 || !strings.HasPrefix(got, "ää") || !strings.HasSuffix(got, " …") {
		t.Errorf("got %d bytes", len(got))
	}
	if detail.Boot.Error != long {
		t.Error("the caller's own detail was changed")
	}
}
