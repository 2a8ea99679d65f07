package workload

import (
	"fmt"

	"github.com/flowviz/flowagent/internal/suggest"
)

// didYouMean is `: did you mean "x"?` for the closest of known, or nothing when none is close.
func didYouMean(name string, known []string) string {
	if best := suggest.Closest(name, known); best != "" {
		return fmt.Sprintf(": did you mean %q?", best)
	}
	return ""
}
