package cloudwatch_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flowviz/flowagent/agent/cloudwatch"
	"github.com/flowviz/flowagent/agent/health"
)

func TestReporter_SpeaksOnceInEveryMinuteAtItsOwnPlace(t *testing.T) {
	var places []time.Duration
	for _, random := range []float64{0, 0.37, 0.5, 0.9999} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			s := report(t, random)
			pass(10 * time.Minute)
			ready, errors := s.of(cloudwatch.NodeReady), s.of(cloudwatch.DatabaseConnectionErrors)
			if len(ready) != 10 || len(errors) != 10 {
				t.Fatalf("got %d and %d values in ten minutes, want one of each a minute", len(ready), len(errors))
			}
			for i := range ready {
				// A whole minute is what an alarm looks at.
				if got := int(ready[i].at.Sub(began) / time.Minute); got != i {
					t.Errorf("report %d came in minute %d", i, got)
				}
				if !errors[i].at.Equal(ready[i].at) || ready[i].value != 0 || errors[i].value != 0 {
					t.Errorf("got %v and %v, want 0 and 0 of one moment", ready[i], errors[i])
				}
			}
			places = append(places, ready[0].at.Sub(began))
		})
	}
	for i, place := range places {
		if place < 10*time.Second || place > 51*time.Second || i > 0 && place <= places[i-1] {
			t.Errorf("got the places %v, want them apart and away from the ends of a minute", places)
			break
		}
	}
}

func TestReporter_ANodeThatStartsSaysNothingUntilItsPlaceComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pass(45 * time.Second) // the place in this minute is past
		s := report(t, 0.5)
		pass(44 * time.Second)
		if got := s.count(); got != 0 {
			t.Errorf("got %d reports from a node that only just starts", got)
		}
		pass(2 * time.Second)
		if diff := cmp.Diff([]float64{0}, s.values(cloudwatch.NodeReady)); diff != "" {
			t.Errorf("after its place (-want +got):\n%s", diff)
		}
	})
}

func TestReporter_ACallThatHangsAtTheLastPlaceOfAllTakesNoMinuteAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		s := report(t, 0.9999)
		pass(48500 * time.Millisecond)
		s.fail(hang)
		s.is(health.Ready) // is reported at 49 s, and hangs for 10
		pass(time.Second)
		s.fail(nil)
		pass(15 * time.Second)
		ready := s.of(cloudwatch.NodeReady)
		if len(ready) != 1 || ready[0].at.Sub(began) >= time.Minute {
			t.Errorf("got %v, want one report within the minute that began at %v", ready, began)
		}
	})
}

func TestReporter_SaysAtOnceThatTheNodeTurnedReadyOrLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := report(t, 0.5)
		pass(5 * time.Second)
		for i, change := range []struct {
			state health.State
			ready []float64
		}{
			{health.Ready, []float64{1}},
			{health.Draining, []float64{1, 0}},
			{health.Failing, []float64{1, 0}}, // no change: it wasn't ready
		} {
			s.is(change.state)
			pass(time.Second)
			if diff := cmp.Diff(change.ready, s.values(cloudwatch.NodeReady)); diff != "" {
				t.Fatalf("a second after change %d, to %v (-want +got):\n%s", i, change.state, diff)
			}
			pass(10 * time.Second)
		}
		pass(9 * time.Second)
		if diff := cmp.Diff([]float64{1, 0, 0}, s.values(cloudwatch.NodeReady)); diff != "" {
			t.Errorf("after the minute's own report (-want +got):\n%s", diff)
		}
	})
}

func TestReporter_ANodeThatFlapsIsNotReportedWithEveryChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := report(t, 0.5)
		pass(500 * time.Millisecond) // between two looks
		for range 30 {
			s.is(health.Ready)
			pass(time.Second)
			s.is(health.Failing)
			pass(time.Second)
		}
		s.is(health.Ready)
		pass(11 * time.Second)
		// At most one every ten seconds, and the minute's own.
		if got := s.count(); got < 3 || got > 9 {
			t.Errorf("got %d calls in 71 seconds of flapping, want a few", got)
		}
		if values := s.values(cloudwatch.NodeReady); values[len(values)-1] != 1 {
			t.Errorf("got %v, want the state that held in the end", values)
		}
	})
}

func TestReporter_CountsWhatFailedSinceTheLastReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := report(t, 0.5) // 30 s into every minute
		s.checks(map[string]uint64{"database": 2})
		pass(time.Minute)
		s.checks(map[string]uint64{"database": 5, "replica": 1})
		pass(time.Minute)
		pass(time.Minute)
		if diff := cmp.Diff([]float64{2, 4, 0}, s.values(cloudwatch.DatabaseConnectionErrors)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestReporter_ACheckThatBeginsToCountAnewTakesNothingAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := report(t, 0.5)
		s.checks(map[string]uint64{"database": 100, "replica": 7})
		pass(time.Minute)
		s.checks(map[string]uint64{"database": 0}) // replaced, and the other one gone
		pass(20 * time.Second)
		s.checks(map[string]uint64{"database": 3})
		pass(40 * time.Second)
		s.checks(map[string]uint64{"database": 3, "replica": 8}) // a new check of the old name
		pass(time.Minute)
		s.checks(map[string]uint64{"database": 1, "replica": 8}) // replaced and failed between two looks
		pass(time.Minute)
		if diff := cmp.Diff([]float64{107, 3, 8, 1}, s.values(cloudwatch.DatabaseConnectionErrors)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestReporter_ANodeThatAsksNoDatabaseClaimsNothingOfIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := report(t, 0.5)
		s.checks(map[string]uint64{"database": 2})
		pass(20 * time.Second)
		s.checks(nil) // what it counted before is still owed
		pass(3 * time.Minute)
		if diff := cmp.Diff([]float64{2}, s.values(cloudwatch.DatabaseConnectionErrors)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if got := len(s.of(cloudwatch.NodeReady)); got != 3 {
			t.Errorf("got %d reports of NodeReady, want 3", got)
		}
	})
}

func TestReporter_NothingIsLostWhileCallsFailAndTheLogIsNotFlooded(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault func(context.Context) error
		says  string
	}{
		{"denied", denied, "allow cloudwatch:PutMetricData"},
		{"unavailable", unavailable, "ServiceUnavailable"},
		{"hanging", hang, "no answer in time"},
		{"unreachable", func(context.Context) error { return errors.New("dial tcp: no route to host") }, "VPC endpoint for monitoring"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := report(t, 0.5)
				s.fail(c.fault)
				for i := range 30 {
					s.checks(map[string]uint64{"database": uint64(i + 1)})
					pass(time.Minute)
				}
				if got := strings.Count(s.log.String(), "\n"); got != 1 || !strings.Contains(s.log.String(), c.says) {
					t.Fatalf("got %d events, want one with %q:\n%s", got, c.says, &s.log)
				}
				if got := s.count(); got != 30 {
					t.Errorf("got %d calls in 30 minutes, want 30", got)
				}
				s.fail(nil)
				pass(2 * time.Minute)
				if diff := cmp.Diff([]float64{30, 0}, s.values(cloudwatch.DatabaseConnectionErrors)); diff != "" {
					t.Errorf("after it healed (-want +got):\n%s", diff)
				}
				if got := strings.Count(s.log.String(), "\n"); got != 2 || !strings.Contains(s.log.String(), "reach CloudWatch again") {
					t.Errorf("got %d events, want one more for the end:\n%s", got, &s.log)
				}
				s.fail(c.fault)
				pass(time.Minute)
				if got := strings.Count(s.log.String(), "\n"); got != 3 {
					t.Errorf("got %d events, want a new failure to be told:\n%s", got, &s.log)
				}
			})
		})
	}
}

func TestReporter_ALostReplyCountsAnErrorTwiceRatherThanNever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := report(t, 0.5)
		s.loseReplies()
		s.checks(map[string]uint64{"database": 3})
		pass(time.Minute)
		s.fail(nil)
		pass(2 * time.Minute)
		if got := s.sum(cloudwatch.DatabaseConnectionErrors); got != 6 {
			t.Errorf("got a sum of %v, want 6", got)
		}
	})
}

func TestReporter_WhatACallToldIsNotInTheLogButForADenial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := report(t, 0.5)
		s.fail(func(context.Context) error { return signatureRefused })
		pass(time.Minute)
		if log := s.log.String(); strings.Contains(log, "session-token") || !strings.Contains(log, "SignatureDoesNotMatch") {
			t.Errorf("got %s, want the code and not the request that it quotes", log)
		}
	})
}

func TestReporter_SaysLastWhatHasHappenedSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := report(t, 0.5)
		s.is(health.Ready)
		pass(40 * time.Second)
		s.is(health.Draining)
		s.checks(map[string]uint64{"database": 4})
		s.stop() // before the next look
		if ready := s.values(cloudwatch.NodeReady); !slices.Equal(ready, []float64{1, 1, 0}) {
			t.Errorf("NodeReady: got %v, want 1 twice and 0 last", ready)
		}
		if got := s.sum(cloudwatch.DatabaseConnectionErrors); got != 4 {
			t.Errorf("DatabaseConnectionErrors: got a sum of %v, want 4", got)
		}
		calls := s.count()
		pass(5 * time.Minute)
		if got := s.count(); got != calls {
			t.Errorf("got %d more calls after the end", got-calls)
		}
	})
}

func TestReporter_HoldsUpTheEndForSecondsAtMost(t *testing.T) {
	for _, c := range []struct {
		name  string
		until time.Duration // when the agent is stopped
	}{{"between two calls", 15 * time.Second}, {"in a call that hangs", 32 * time.Second}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := report(t, 0.5)
				s.checks(map[string]uint64{"database": 1})
				s.fail(hang)
				pass(c.until)
				asked := time.Now()
				s.stop()
				if took := time.Since(asked); took != 3*time.Second {
					t.Errorf("the end took %v, want the last report's 3s and no more", took)
				}
				if got := strings.Count(s.log.String(), "\n"); got != 1 {
					t.Errorf("got %d events, want one: the call that the end cut short is no failure\n%s", got, &s.log)
				}
			})
		})
	}
}

func TestReporter_WhatACutCallHeldIsInTheLastReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := report(t, 0.5)
		s.checks(map[string]uint64{"database": 9})
		s.fail(func(ctx context.Context) error {
			err := hang(ctx)
			s.fail(nil)
			return err
		})
		pass(32 * time.Second)
		s.stop()
		if got := s.values(cloudwatch.DatabaseConnectionErrors); !slices.Equal(got, []float64{9}) {
			t.Errorf("got %v, want 9 in one report", got)
		}
		if s.log.String() != "" {
			t.Errorf("got events, want none:\n%s", &s.log)
		}
	})
}
