package secret

import "time"

// State says what an item's value is worth.
type State string

const (
	// Fresh: the last refresh fetched it.
	Fresh State = "fresh"
	// Stale: its source was unavailable at the last refresh; the value of an earlier one is in use.
	Stale State = "stale"
	// Withdrawn: its source said that it is gone or may not be read; the earlier value was dropped.
	Withdrawn State = "withdrawn"
	// Missing: it was never fetched.
	Missing State = "missing"
)

// Status describes one secret without its value.
type Status struct {
	Name string `json:"name"`
	// Source is the kind and place, with the key path after a #: secretsManager:flowviz/app#db.password.
	Source string `json:"source"`
	State  State  `json:"state"`
	// Version is the source's own name for the version in use; empty where it has none.
	Version string `json:"version,omitempty"`
	// FetchedAt is when it was last fetched; zero for never.
	FetchedAt time.Time `json:"fetchedAt,omitzero"`
	// ChangedAt is when its value was last seen to be another one; zero for never.
	ChangedAt time.Time `json:"changedAt,omitzero"`
	// Error is what went wrong at the last refresh; empty when nothing did.
	Error string `json:"error,omitempty"`
}

// Status describes every item, sorted by name.
func (k *Keeper) Status() []Status {
	k.mu.RLock()
	defer k.mu.RUnlock()
	all := make([]Status, len(k.items))
	for i, it := range k.items {
		all[i] = Status{
			Name:      it.name,
			Source:    it.where(),
			State:     it.state,
			Version:   it.version,
			FetchedAt: it.fetchedAt,
			ChangedAt: it.changedAt,
		}
		if it.problem != nil {
			all[i].Error = it.problem.Error()
		}
	}
	return all
}
