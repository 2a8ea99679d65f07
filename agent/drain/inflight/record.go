package inflight

import "time"

const (
	// probeJump is how much later a keep-alive timer has to end than it did before, to have been set anew: more than the
	// clock tick and what passes between two reads, and less than the second that is the shortest such timer.
	probeJump = 500 * time.Millisecond
	// probeAnswer is what the answer to a probe may take: a far client's, and one second by which conntrack may be late.
	probeAnswer = 1500 * time.Millisecond
)

// record is what a wait remembers of a connection, so that keep-alive probes don't count as work: a Go server sends
// one every 15 s on a connection without traffic, and conntrack takes it, and the client's answer, for movement. Of
// twenty unused connections, whose probes are spread over that time, hardly ever all would be idle at once.
//
// What gives a probe away is that the socket's keep-alive timer was set anew at the same time. A request in the second
// around a probe is taken for it unless its bytes wait in a queue. The client's own probes can't be told from work.
type record struct {
	// moved is when conntrack last saw a packet.
	moved time.Time
	// quiet is since when nothing moved but probes.
	quiet time.Time
	// probeAt is when the keep-alive timer ends; zero without one.
	probeAt time.Time
	// probed is when it was seen to have ended.
	probed time.Time
}

// next is the record after a look at the socket. moved, zero if unknown, has to be from before that look: or else a
// probe could be seen in conntrack that the socket doesn't show yet.
func (r record) next(s socket, moved, now time.Time) record {
	probeAt := time.Time{}
	if s.keepalive {
		probeAt = now.Add(s.probeIn)
	}
	if s.keepalive && !r.probeAt.IsZero() && probeAt.Sub(r.probeAt) > probeJump {
		r.probed = now
	}
	r.probeAt = probeAt
	if moved.After(r.moved) {
		r.moved = moved
		if r.probed.IsZero() || moved.Sub(r.probed).Abs() > probeAnswer {
			r.quiet = moved
		}
	}
	if s.queued || s.state == stateCloseWait {
		r.quiet = now
	}
	return r
}
