package image

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// pulse is when any pull of a [Puller] last got further.
type pulse struct {
	mu   sync.Mutex
	last time.Time
}

func (p *pulse) beat() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = time.Now()
}

func (p *pulse) lastBeat() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// stall cancels one try of a pull that stands still: before the engine's first message when the registry doesn't
// answer, later when nothing moves. A pull whose layers all wait for their turn in the engine is as alive as the other
// pulls are.
type stall struct {
	begin, idle time.Duration // 0: no limit
	pulse       *pulse
	cancel      context.CancelCauseFunc

	mu      sync.Mutex
	timer   *time.Timer // nil: no limit, or stopped
	last    time.Time   // of the last progress, or the start
	started bool
	queued  bool
}

// watchStall starts the clock. The caller calls moved for each message, and stop when the try is over.
func watchStall(begin, idle time.Duration, p *pulse, cancel context.CancelCauseFunc) *stall {
	s := &stall{begin: begin, idle: idle, pulse: p, cancel: cancel, last: time.Now()}
	s.mu.Lock()
	defer s.mu.Unlock()
	if begin > 0 {
		s.timer = time.AfterFunc(begin, s.fire)
	}
	return s
}

// moved says that the engine sent something: whether it was progress, and whether the pull is in the engine's queue.
func (s *stall) moved(progress, queued bool) {
	if progress {
		s.pulse.beat()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queued = queued
	if progress {
		s.last = time.Now()
	}
	if s.started {
		return // fire looks at last when it comes
	}
	s.started = true
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	if s.idle > 0 {
		s.timer = time.AfterFunc(s.idle, s.fire)
	}
}

func (s *stall) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
}

func (s *stall) fire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer == nil {
		return // stopped while this was on its way
	}
	limit, last := s.begin, s.last
	if s.started {
		limit = s.idle
		if beat := s.pulse.lastBeat(); s.queued && beat.After(last) {
			last = beat
		}
	}
	if left := limit - time.Since(last); left > 0 {
		s.timer.Reset(left)
		return
	}
	s.timer = nil
	if s.started {
		s.cancel(fmt.Errorf("%w: nothing moved for %s (workload.pull.idleTimeout)", ErrTimeout, s.idle))
		return
	}
	s.cancel(fmt.Errorf("%w: no answer for %s (workload.pull.beginTimeout)", ErrTimeout, s.begin))
}
