package config

import (
	"strings"

	"github.com/flowviz/flowagent/internal/suggest"
)

// didYouMean is the hint for a word that isn't among the candidates; all of them when none is close.
func didYouMean(word string, candidates []string) string {
	if c := suggest.Closest(word, candidates); c != "" {
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
