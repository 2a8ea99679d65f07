package suggest

import "testing"

func TestDistanceCountsASwapAsOneSlip(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "abc", 3}, {"abc", "abc", 0}, {"paralel", "parallel", 1}, {"flies", "files", 1}, {"kitten", "sitting", 3}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("distance(%q, %q): got %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

func TestClosestFindsSlipsAndOtherSpellingsButNotOtherWords(t *testing.T) {
	names := []string{"password", "passwordSecret", "parallel"}
	for word, want := range map[string]string{
		"paralel":         "parallel",
		"password_secret": "passwordSecret",
		"PASSWORD":        "password",
		"timeout":         "",
		"":                "",
	} {
		if got := Closest(word, names); got != want {
			t.Errorf("Closest(%q): got %q, want %q", word, got, want)
		}
	}
}
