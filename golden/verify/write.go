package verify

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// shownFindings is how many of a check's findings a table shows; JSON has all.
const shownFindings = 20

// Write prints the report as a table for people: one line for each check, and below it where it failed.
func Write(w io.Writer, r Report) error {
	var b strings.Builder
	tabs := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprint(tabs, "CHECK\tRESULT\tREASON\n")
	failed := 0
	for _, c := range r.Checks {
		fmt.Fprintf(tabs, "%s\t%s\t%s\n", c.Name, c.Status, strings.ReplaceAll(c.Reason, "\n", "; "))
		for i, finding := range c.Findings {
			if i == shownFindings {
				fmt.Fprintf(tabs, "\t\t  and %d more: see --output json\n", len(c.Findings)-i)
				break
			}
			fmt.Fprintf(tabs, "\t\t  %s\n", strings.ReplaceAll(finding, "\n", "; "))
		}
		if c.Status == Failed {
			failed++
		}
	}
	_ = tabs.Flush() // into memory
	if r.OK {
		fmt.Fprintf(&b, "\n%s is fit to be cloned\n", r.Root)
	} else {
		fmt.Fprintf(&b, "\n%s is not fit to be cloned: %d of %s failed\n", r.Root, failed, counted(len(r.Checks), "check"))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
