package install

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// WriteTable writes the result for a person.
func (r *Result) WriteTable(w io.Writer) error {
	tabs := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tabs, "FILE\tSTATE\tPROFILE\tMODE")
	kept := 0
	for _, f := range r.Files {
		fmt.Fprintf(tabs, "%s\t%s\t%s\t%s\n", f.Path, f.State, f.Profile, f.Mode)
		if f.State == Kept {
			kept++
		}
	}
	if err := tabs.Flush(); err != nil {
		return err
	}
	for _, s := range r.Steps {
		if s.Done {
			fmt.Fprintln(w, "done: "+s.Command)
		} else {
			fmt.Fprintf(w, "not done: %s: %s\n", s.Command, s.Reason)
		}
	}
	for _, m := range r.Missing {
		fmt.Fprintf(w, "missing: %s, which reads %s: install the package %s\n", m.Name, m.Path, m.Package)
	}
	if kept > 0 {
		fmt.Fprintf(w, "kept: each new version is beside its file, as NAME%s: merge them, or run this with --overwrite\n", newSuffix)
	}
	for i, command := range r.Activate {
		before := "to heed it now rather than after a reboot: "
		if i > 0 {
			before = "                                           "
		}
		fmt.Fprintln(w, before+command)
	}
	if r.DryRun {
		_, err := fmt.Fprintln(w, "dry run: nothing was changed")
		return err
	}
	return nil
}
