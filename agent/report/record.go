package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/flowviz/flowagent/internal/atomicfile"
)

// Record is what is left of a boot after a reboot.
type Record struct {
	// Starts counts the agent's starts on this machine that became ready or failed, this one included.
	Starts  int       `json:"starts"`
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	// Ready is zero when the node did not become ready; then Error says why.
	Ready  time.Time `json:"ready,omitzero"`
	Error  string    `json:"error,omitempty"`
	Stages []Stage   `json:"stages"`
}

// ReadRecord returns the record at path; a zero one when there is none, or when it can't be read as one, since nobody
// should lose a boot to the history of another.
func ReadRecord(path string) (Record, error) {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Record{}, nil
	}
	if err != nil {
		return Record{}, fmt.Errorf("read the last boot's record: %w", err)
	}
	var record Record
	if json.Unmarshal(content, &record) != nil {
		return Record{}, nil
	}
	return record, nil
}

// WriteRecord replaces the record at path as a whole.
func WriteRecord(path string, record Record) error {
	content, err := json.MarshalIndent(record, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the boot's record: %w", err)
	}
	if err := atomicfile.Write(path, append(content, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the boot's record: %w: check that the disk is writable and not full", err)
	}
	return nil
}
