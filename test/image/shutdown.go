package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// entry is what is read of the journal's entries.
type entry struct {
	Message string `json:"MESSAGE"`
	Event   string `json:"FLOWAGENT_EVENT"`
	Trigger string `json:"FLOWAGENT_TRIGGER"`
	Service string `json:"FLOWAGENT_SERVICE"`
	Phase   string `json:"FLOWAGENT_PHASE"`
	Elapsed string `json:"FLOWAGENT_ELAPSED"`
	Unit    string `json:"UNIT"` // the one that an entry of systemd is about
}

// judgeShutdown reads the journal of a boot that ended in a shutdown of the WMS node, as journalctl writes it in JSON. It wants
// one drain because of the shutdown, which stopped the worker, then the API, then what both use, wiped the secrets and was done
// before systemd stopped the engine.
func judgeShutdown(journal io.Reader) (detail string, err error) {
	var told []string
	var done entry
	decoder := json.NewDecoder(journal)
	for {
		// A value is null or a list of numbers where it is too long or binary; such entries are none of these.
		var fields map[string]json.RawMessage
		if err := decoder.Decode(&fields); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return "", fmt.Errorf("read the journal: %w", err)
		}
		var e entry
		for name, value := range map[string]*string{
			"MESSAGE": &e.Message, "FLOWAGENT_EVENT": &e.Event, "FLOWAGENT_TRIGGER": &e.Trigger, "FLOWAGENT_SERVICE": &e.Service,
			"FLOWAGENT_PHASE": &e.Phase, "FLOWAGENT_ELAPSED": &e.Elapsed, "UNIT": &e.Unit,
		} {
			_ = json.Unmarshal(fields[name], value) // see above
		}
		switch {
		case e.Event == "drain started":
			told = append(told, "drain for "+e.Trigger)
		case e.Event == "container stopped":
			told = append(told, e.Service)
		case e.Event == "stage done" && e.Phase == "drain.secrets":
			told = append(told, "secrets wiped")
		case e.Event == "drain done":
			told, done = append(told, "drained"), e
		case e.Event == "drain ended with failures", e.Event == "container not stopped":
			told = append(told, e.Message)
		case e.Unit == "docker.service" && strings.HasPrefix(e.Message, "Stopping "):
			told = append(told, "engine")
		}
	}
	wanted := []string{"drain for shutdown", "worker", "api", "postgres", "valkey", "secrets wiped", "drained", "engine"}
	// The database and the queue depend on nothing, so either may be first.
	if i := slices.Index(told, "valkey"); i >= 0 && i+1 < len(told) && told[i+1] == "postgres" {
		told[i], told[i+1] = told[i+1], told[i]
	}
	if !slices.Equal(told, wanted) {
		return "", fmt.Errorf("the journal tells of\n%s\nwant\n%s", strings.Join(told, ", "), strings.Join(wanted, ", "))
	}
	return strings.Join(told, ", ") + "; it took " + done.Elapsed, nil
}
