package iam

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Compare says, one sentence each and in a fixed order, how the granted document differs from the needed one: which actions on
// which resources it doesn't grant, and which it grants beyond what is needed. Nothing is said of two documents that allow the
// same, however they are cut into statements, whatever their Sids.
//
// A permission counts as granted where one statement has its action, its resource and no condition that the need doesn't have.
// One that several statements grant only together counts as missing: the answer may say too much, never too little. What it
// doesn't weigh, a Deny, is a sentence as well.
func Compare(needed, granted Document) []string {
	var differences []string
	for _, d := range []struct {
		document Document
		name     string
	}{{needed, "needed"}, {granted, "granted"}} {
		for _, s := range d.document.Statement {
			if s.Effect != allow {
				differences = append(differences, fmt.Sprintf("not compared (%s): %s %s in the %s policy", label(s), s.Effect, strings.Join(s.Action, ", "), d.name))
			}
		}
	}
	return slices.Concat(differences,
		uncovered("not granted", needed, granted),
		uncovered("not needed", granted, needed),
	)
}

// uncovered is what the statements of one document allow and those of the other don't.
func uncovered(what string, of, by Document) []string {
	var all []string
	for _, s := range of.Statement {
		if s.Effect != allow {
			continue
		}
		for _, action := range s.Action {
			for _, resource := range s.Resource {
				covered, otherwise := covers(by, action, resource, s.Condition)
				if covered {
					continue
				}
				sentence := fmt.Sprintf("%s (%s): %s on %s", what, label(s), action, resource)
				if len(s.Condition) > 0 {
					sentence += " if " + s.Condition.String()
				}
				if otherwise != nil {
					sentence += fmt.Sprintf("; the other policy's %s has it if %s", label(*otherwise), otherwise.Condition)
				}
				all = append(all, sentence)
			}
		}
	}
	return all
}

// covers tells whether one statement allows it. Where only conditions stand against that, it returns the statement.
func covers(d Document, action, resource string, under Conditions) (bool, *Statement) {
	var otherwise *Statement
	for _, s := range d.Statement {
		if s.Effect != allow || !anyWithin(strings.ToLower(action), lower(s.Action)) || !anyWithin(resource, s.Resource) {
			continue
		}
		if implies(under, s.Condition) {
			return true, nil
		}
		otherwise = &s
	}
	return false, otherwise
}

func anyWithin(inner string, outers List) bool {
	return slices.ContainsFunc(outers, func(outer string) bool { return within(inner, outer) })
}

// lower is for actions and the keys of conditions, whose case means nothing to IAM.
func lower(list List) List {
	lowered := make(List, len(list))
	for i, text := range list {
		lowered[i] = strings.ToLower(text)
	}
	return lowered
}

// implies tells whether a request that meets the conditions given meets the conditions asked.
func implies(given, asked Conditions) bool {
	for operator, keys := range asked {
		for key, values := range keys {
			if !slices.ContainsFunc(sameKey(given, key), func(g clause) bool { return g.implies(operator, values) }) {
				return false
			}
		}
	}
	return true
}

// clause is one operator with its values, of one key.
type clause struct {
	operator string
	values   List
}

func sameKey(c Conditions, key string) []clause {
	var found []clause
	for _, operator := range slices.Sorted(maps.Keys(c)) {
		for name, values := range c[operator] {
			if strings.EqualFold(name, key) {
				found = append(found, clause{operator, values})
			}
		}
	}
	return found
}

// matchers are operators whose values are alternatives, by the operators that they are as narrow as. The others have to be
// the same, with the same values.
var matchers = map[string][]string{
	"StringEquals": {"StringEquals", "StringLike"},
	"StringLike":   {"StringLike"},
	"ArnEquals":    {"ArnEquals", "ArnLike"}, // which are one and the same (IAM User Guide, "ARN condition operators")
	"ArnLike":      {"ArnEquals", "ArnLike"},
}

func (c clause) implies(operator string, values List) bool {
	if !slices.Contains(matchers[c.operator], operator) {
		return c.operator == operator && slices.Equal(sorted(c.values), sorted(values))
	}
	return !slices.ContainsFunc(c.values, func(value string) bool {
		if operator == "StringEquals" {
			return !slices.Contains(values, value)
		}
		return !anyWithin(value, values)
	})
}

func label(s Statement) string {
	if s.Sid == "" {
		return "no Sid"
	}
	return s.Sid
}
