// Package suggest finds the word that was most likely meant.
package suggest

import (
	"slices"
	"strings"
)

// maxWord bounds the words that are compared, in bytes; no name that people type is half as long.
const maxWord = 40

// Closest returns the candidate that word was most likely meant to be, or "" when none is close.
func Closest(word string, candidates []string) string {
	if word == "" || len(word) > maxWord {
		return ""
	}
	for _, c := range candidates { // password_secret for passwordSecret is further away than an edit or two
		if Fold(c) == Fold(word) {
			return c
		}
	}
	// One slip in three letters is a slip; more is another word.
	best, bestDistance := "", max(1, len(word)/3)+1
	for _, c := range candidates {
		if d := distance(strings.ToLower(word), strings.ToLower(c)); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// Fold makes spellings of one name equal: passwordSecret, password_secret, password-secret.
func Fold(name string) string {
	return strings.NewReplacer("_", "", "-", "").Replace(strings.ToLower(name))
}

// distance counts the insertions, deletions, replacements and swaps of neighbours (optimal string alignment) that
// turn a into b.
func distance(a, b string) int {
	before, last := []int(nil), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			row[j] = slices.Min([]int{last[j] + 1, row[j-1] + 1, last[j-1] + change})
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
