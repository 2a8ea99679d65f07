package seal

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/docker/go-units"
)

// Write prints the report as a table for people: one line for each change, and its reason.
func Write(w io.Writer, r Report) error {
	var b strings.Builder
	if len(r.Changes) > 0 {
		tabs := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		verb := "DID"
		if r.DryRun {
			verb = "WOULD HAVE"
		}
		fmt.Fprintf(tabs, "KIND\tPATH\t%s\tWHY\n", verb)
		for _, c := range r.Changes {
			did := c.Did
			if c.Bytes > 0 || c.Files > 1 {
				did += fmt.Sprintf(" (%d files, %s)", c.Files, units.HumanSize(float64(c.Bytes)))
			}
			fmt.Fprintf(tabs, "%s\t%s\t%s\t%s\n", c.Kind, c.Path, did, c.Why)
		}
		_ = tabs.Flush() // into memory
		b.WriteByte('\n')
	}
	if len(r.Kept) > 0 {
		fmt.Fprintf(&b, "kept as asked: %s\n", strings.Join(r.Kept, ", "))
	}
	switch {
	case len(r.Problems) > 0:
		fmt.Fprintf(&b, "%s is not sealed\n", r.Root)
	case r.DryRun && len(r.Changes) > 0:
		fmt.Fprintf(&b, "nothing was changed: %s would be sealed by the above\n", r.Root)
	case len(r.Changes) == 0:
		fmt.Fprintf(&b, "nothing to do: %s is sealed\n", r.Root)
	default:
		fmt.Fprintf(&b, "%s is sealed\n", r.Root)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
