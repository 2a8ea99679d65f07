package iam

import (
	"regexp"
	"strings"
	"testing"
)

func TestWithin(t *testing.T) {
	for _, tt := range []struct {
		inner, outer string
		want         bool
	}{
		{"", "", true},
		{"arn:aws:s3:::b/k", "arn:aws:s3:::b/k", true},
		{"arn:aws:s3:::b/k", "arn:aws:s3:::b/*", true},
		{"arn:aws:s3:::b/*", "arn:aws:s3:::b/k", false},
		{"arn:aws:s3:::b/*", "*", true},
		{"*", "arn:aws:s3:::b/*", false},
		{"secret:app-??????", "secret:app-*", true},
		{"secret:app-AbCdEf", "secret:app-??????", true},
		{"secret:app-*", "secret:app-??????", false},
		{"secret:app-?????", "secret:app-??????", false},
		{"group:*:name/blue", "group:*:name/*", true},
		{"group:*:name/*", "group:*:name/blue", false},
		{"*?", "?*", true},
		{"?*", "*?", true},
		{"a*b*c", "a*c", true},
		{"a*c", "a*b*c", false},
		{"ü", "?", true}, // one character, whatever its bytes
	} {
		if got := within(tt.inner, tt.outer); got != tt.want {
			t.Errorf("within(%q, %q) is %v, want %v", tt.inner, tt.outer, got, tt.want)
		}
	}
}

// Every pair of short patterns is held against what the two really match. Texts with a letter that is in no pattern stand for
// all the others, and texts two longer than the patterns for everything longer.
func TestWithinAgreesWithMatching(t *testing.T) {
	patterns := texts("ab*?", 3)
	samples := texts("abx", 5)
	matches := map[string][]bool{}
	for _, p := range patterns {
		quoted := strings.NewReplacer(`\*`, ".*", `\?`, ".").Replace(regexp.QuoteMeta(p))
		expression := regexp.MustCompile("^" + quoted + "$")
		for _, s := range samples {
			matches[p] = append(matches[p], expression.MatchString(s))
		}
	}
	for _, inner := range patterns {
		for _, outer := range patterns {
			want := true
			for i := range samples {
				want = want && (!matches[inner][i] || matches[outer][i])
			}
			got := within(inner, outer)
			if !got && want && strings.Contains(outer, "*") && strings.Contains(outer, "?") {
				continue // documented: it says no where it can't tell
			}
			if got != want {
				t.Errorf("within(%q, %q) is %v, but what they match says %v", inner, outer, got, want)
			}
		}
	}
}

// texts are all texts of up to longest letters of an alphabet.
func texts(alphabet string, longest int) []string {
	all := []string{""}
	last := all
	for range longest {
		var next []string
		for _, text := range last {
			for _, letter := range alphabet {
				next = append(next, text+string(letter))
			}
		}
		all = append(all, next...)
		last = next
	}
	return all
}
