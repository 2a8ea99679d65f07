package config

import (
	"slices"
	"strings"
)

// maxSuggest bounds the words that are compared, in bytes; no name of the format is half as long.
const maxSuggest = 40

// suggest returns the candidate that word was most likely meant to be, or "".
func suggest(word string, candidates []string) string {
	if word == "" || len(word) > maxSuggest {
		return ""
	}
	for _, c := range candidates { // password_secret for passwordSecret is further away than an edit or two
		if fold(c) == fold(word) {
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

// didYouMean is the hint for a word that isn't among the candidates; all of them when none is close.
func didYouMean(word string, candidates []string) string {
	if c := suggest(word, candidates); c != "" {
		return "did you mean `" + c + "`?"
	}
	return "use " + alternatives(candidates)
}

// alternatives joins words for reading: a, b or c.
func alternatives(words []string) string {
	switch len(words) {
	case 0:
		return "nothing"
	case 1:
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// fold makes spellings of one name equal: passwordSecret, password_secret, password-secret.
func fold(name string) string {
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
