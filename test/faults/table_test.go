package faults

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// outcome is what became of a cell.
type outcome struct {
	took   time.Duration // from the trigger to the completion, or the drain's end without one
	failed bool
}

// outcomes are those of all cells that ran.
type outcomes struct {
	mu    sync.Mutex
	cells map[[3]string]outcome
}

var results = outcomes{cells: make(map[[3]string]outcome)}

func key(f fault, tr trigger) [3]string { return [3]string{f.step, f.name, tr.name} }

func (o *outcomes) note(f fault, tr trigger, result outcome) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.cells[key(f, tr)].failed {
		return
	}
	o.cells[key(f, tr)] = result
	if *whole {
		fmt.Fprintf(os.Stderr, "faults: %s: %s: %s: %s\n", f.step, f.name, tr.name, result.text(tr))
	}
}

// print writes a table for each step: a row for each trigger, a column for each fault.
func (o *outcomes) print(w io.Writer) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	var reasons []string
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for i := 0; i < len(faults); {
		step := faults[i].step
		block := faults[i:]
		if end := slices.IndexFunc(block, func(f fault) bool { return f.step != step }); end >= 0 {
			block = block[:end]
		}
		i += len(block)
		fmt.Fprintf(t, "\n%s", step)
		for _, f := range block {
			fmt.Fprintf(t, "\t%s", f.name)
		}
		fmt.Fprintln(t)
		for _, tr := range triggers {
			fmt.Fprintf(t, "  %s", tr.name)
			for _, f := range block {
				cell := "not run"
				if result, ran := o.cells[key(f, tr)]; ran {
					cell = result.text(tr)
				} else if reason := f.reason(tr); reason != "" {
					cell = "-"
					reasons = append(reasons, fmt.Sprintf("%s, %s: %s", step, f.name, reason))
				}
				fmt.Fprintf(t, "\t%s", cell)
			}
			fmt.Fprintln(t)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	slices.Sort(reasons)
	if len(reasons) > 0 {
		reasons = slices.Compact(reasons)
		fmt.Fprintf(w, "\n- stands where a cell makes no sense:\n  %s\n", strings.Join(reasons, "\n  "))
	}
	wrong := 0
	for _, result := range o.cells {
		if result.failed {
			wrong++
		}
	}
	_, err := fmt.Fprintf(w, "\n%d cells, %d wrong\n", len(o.cells), wrong)
	return err
}
