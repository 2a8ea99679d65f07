package e2e

import (
	"bytes"
	"encoding/json"
	"sync"
	"time"
)

// event is one line that an agent wrote.
type event struct {
	Time  time.Time `json:"time"`
	Msg   string    `json:"msg"`
	Phase string    `json:"phase"`
	Level string    `json:"level"`
	Error string    `json:"error"`

	line string
}

// journal keeps what one agent writes, line by line.
type journal struct {
	mu      sync.Mutex
	text    bytes.Buffer
	partial []byte
	events  []event
	changed chan struct{} // closed at the next event
}

func newJournal() *journal { return &journal{changed: make(chan struct{})} }

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.text.Write(p)
	j.partial = append(j.partial, p...)
	for {
		line, rest, whole := bytes.Cut(j.partial, []byte("\n"))
		if !whole {
			return len(p), nil
		}
		e := event{line: string(line)}
		_ = json.Unmarshal(line, &e) // what is no JSON has a line only
		j.events = append(j.events, e)
		j.partial = rest
		close(j.changed)
		j.changed = make(chan struct{})
	}
}

// find returns the first event that matches; when there is none yet, a channel that is closed with the next event.
func (j *journal) find(match func(event) bool) (event, <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, e := range j.events {
		if match(e) {
			return e, nil
		}
	}
	return event{}, j.changed
}

// failures are the stages that failed for a reason of their own, as "phase: error".
func (j *journal) failures() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var failed []string
	for _, e := range j.events {
		if e.Msg == "stage failed" && e.Error != "given up: what is done beside it failed" {
			failed = append(failed, e.Phase+": "+e.Error)
		}
	}
	return failed
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}
