package image

import (
	"log/slog"
	"sync"
	"time"
)

// eventEvery is how often an image that is under way is logged: often enough to see that it moves, rare enough that
// two hours of it make no more than 720 lines.
const eventEvery = 10 * time.Second

// NewEvents logs progress where no terminal is: when an image starts and ends, and at most every ten seconds how far it
// is. Why a try failed is logged by the [Puller] itself, and the error of an image that failed by who asked for it.
func NewEvents(log *slog.Logger) Progress {
	return &events{log: log, last: map[string]time.Time{}}
}

type events struct {
	log *slog.Logger

	mu   sync.Mutex
	last map[string]time.Time // of each image under way
}

func (e *events) Started(name string) {
	e.mu.Lock()
	e.last[name] = time.Now()
	e.mu.Unlock()
	e.log.Info("image started", "image", name)
}

func (e *events) Moved(name string, s State) {
	e.mu.Lock()
	due := time.Since(e.last[name]) >= eventEvery
	if due {
		e.last[name] = time.Now()
	}
	e.mu.Unlock()
	if due {
		e.log.Info("image under way", "image", name, "doing", s.Doing, "bytes", s.Current, "of", s.Total, "layers", s.Done, "ofLayers", s.Layers)
	}
}

func (e *events) Waiting(string, string, time.Duration) {}

func (e *events) Finished(name string, result Image, err error) {
	e.mu.Lock()
	delete(e.last, name)
	e.mu.Unlock()
	if err != nil {
		e.log.Error("image failed", "image", name, "elapsed", result.Elapsed)
		return
	}
	e.log.Info("image ready", "image", name, "id", result.ID, "digest", result.Digest, "bytes", result.Bytes, "elapsed", result.Elapsed)
}
