package health

import (
	"hash/fnv"
	"math"
	"sync/atomic"
	"time"
)

const (
	// A node that waits for a check asks it this often: what it waits for was most likely started with it, and half a
	// second is little beside a boot.
	eagerInterval = 500 * time.Millisecond
	// The first good answer is confirmed after this, or every boot would take rise × 500 ms longer.
	confirmInterval = 100 * time.Millisecond
	// After this long what is missing is no longer just starting, and a struggling database has better things to do than
	// to answer a fleet twice a second a node.
	eagerFor = time.Minute
	// The first probes of a node that waits are this far apart from each other, on average: together they would be
	// late, and next to nothing beside a boot.
	eagerGap = time.Millisecond
)

// eager tells whether the node's boot waits for this check.
func (m *Monitor) eager(r *runner, now time.Time) bool {
	return r.track.phase != up && (r.check.admits() && !m.isIn || r.check.gates() && r.track.phase == pending) && now.Sub(r.began) < eagerFor
}

// next is when a check whose probe has just ended is asked again. The rhythm goes from start to start; a probe that took
// longer than the interval is followed by the next at once.
func (m *Monitor) next(r *runner, now time.Time) time.Time {
	if m.eager(r, now) {
		wait := eagerInterval
		if r.track.streak > 0 {
			wait = confirmInterval
		}
		return now.Add(min(wait, r.check.Interval))
	}
	interval := float64(r.check.Interval) * (1 + jitter*(2*m.options.Random()-1))
	due := r.started.Add(time.Duration(interval))
	if due.Before(now) {
		return now
	}
	return due
}

func eagerWindow(checks int) time.Duration {
	return min(time.Duration(checks)*eagerGap, eagerInterval)
}

// spread is where in a window a check's first probe belongs: always at the same place for the same name, and names
// evenly over the whole.
func spread(name string, window time.Duration) time.Duration {
	h := fnv.New64a()
	h.Write([]byte(name)) // never fails
	// FNV's last bytes barely reach its high bits: one round of mixing (MurmurHash3's finalizer) spreads check-1,
	// check-2 and so on.
	x := h.Sum64()
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	x ^= x >> 33
	return time.Duration(float64(x) / (math.MaxUint64 + 1.0) * float64(window))
}

// DelayBounds are the upper bounds of the buckets of [Delays]. The promise is 50 ms for 99 of 100 probes.
var DelayBounds = [...]time.Duration{
	time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, time.Second,
}

// Delays counts by how much probes started late. Its zero value is ready for use, by several goroutines.
type Delays struct {
	buckets [len(DelayBounds) + 1]atomic.Uint64
	sum     atomic.Int64 // nanoseconds
}

func (d *Delays) observe(late time.Duration) {
	late = max(late, 0)
	i := 0
	for i < len(DelayBounds) && late > DelayBounds[i] {
		i++
	}
	d.buckets[i].Add(1)
	d.sum.Add(int64(late))
}

// Counts returns how many probes started at all, how many at most each of [DelayBounds] late, and the sum of the delays.
func (d *Delays) Counts() (all uint64, within [len(DelayBounds)]uint64, sum time.Duration) {
	for i := range DelayBounds {
		all += d.buckets[i].Load()
		within[i] = all
	}
	return all + d.buckets[len(DelayBounds)].Load(), within, time.Duration(d.sum.Load())
}
