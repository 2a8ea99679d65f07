package iam

import "strings"

// within tells whether everything that the pattern inner matches is matched by the pattern outer, too. In both, * is any
// number of characters and ? is one (IAM User Guide, "Resource", wildcards). A text without either is a pattern that matches
// itself. A true answer is always right. A false one may be wrong where outer has both * and ?: that "*a" is within "?*" is not
// seen, which no policy needs.
func within(inner, outer string) bool {
	in, out := orderly(inner), orderly(outer)
	// follows[j]: what was read of in lies within out[:j]. A * of in stands for what no other letter of out can: only a * of
	// out takes it.
	follows := make([]bool, len(out)+1)
	follows[0] = true
	for j := range out {
		follows[j+1] = follows[j] && out[j] == '*'
	}
	for _, c := range in {
		next := make([]bool, len(out)+1)
		for j := range out {
			switch {
			case out[j] == '*':
				next[j+1] = next[j] || follows[j+1] || follows[j]
			case c == '*':
			case out[j] == '?' || out[j] == c:
				next[j+1] = follows[j]
			}
		}
		follows = next
	}
	return follows[len(out)]
}

// orderly writes every run of wildcards in one way: what it needs of single characters first, then one * if it has any. So
// *? and ?* are the same.
func orderly(pattern string) []rune {
	var tidy []rune
	star := false
	for _, c := range pattern {
		switch {
		case c == '*':
			star = true
			continue
		case c != '?' && star:
			tidy = append(tidy, '*')
			star = false
		}
		tidy = append(tidy, c)
	}
	if star {
		tidy = append(tidy, '*')
	}
	return tidy
}

// wild tells whether a text is a pattern.
func wild(text string) bool { return strings.ContainsAny(text, "*?") }
