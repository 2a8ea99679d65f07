package iam

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// tableRow is a statement as the guide has it.
func tableRow(s Statement) string {
	quoted := func(texts []string) string {
		var all []string
		for _, text := range texts {
			all = append(all, "`"+text+"`")
		}
		return strings.Join(all, ", ")
	}
	var keys []string
	for _, clause := range s.Condition.Clauses() {
		keys = append(keys, strings.Fields(clause)[1])
	}
	return fmt.Sprintf("| `%s` | %s | %s | %s | %s |\n", s.Sid, quoted(s.Action), s.Purpose, quoted(keys), s.Wildcard)
}

// IAM takes no comments, so the reasons are in the guide; they are those that the command prints.
func TestTheGuideHasEveryStatementAndItsReasons(t *testing.T) {
	const file, header = "../../docs/guides/iam.md", "| --- | --- | --- | --- | --- |\n"
	guide, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(guide), header)
	if !found {
		t.Fatalf("%s has no table of five columns", file)
	}
	table, _, _ = strings.Cut(table, "\n\n")
	var want strings.Builder
	for _, s := range everything(t).Statement {
		want.WriteString(tableRow(s))
	}
	if got := table + "\n"; got != want.String() {
		t.Errorf("the table of %s differs from the statements; it should be\n%s", file, want.String())
	}
}
