package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMarksAreInTheOrderOfTheirTimes(t *testing.T) {
	marks, err := parseMarks("engine\t2500000\nsystemd begins\t1000\n")
	want := []mark{{"systemd begins", time.Millisecond}, {"engine", 2500 * time.Millisecond}}
	if got := inOrder(marks); err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v (%v), want %v", got, err, want)
	}
}

// What systemd prints for something that has not happened is 0 or empty, and must not look like a fast boot.
func TestAMarkWithoutATimeIsRefused(t *testing.T) {
	for _, text := range []string{"engine\t0", "engine\t", "engine", "engine\tsoon"} {
		if marks, err := parseMarks(text); err == nil || !strings.Contains(err.Error(), "engine") {
			t.Errorf("%q: got %v, %v; want an error that names it", text, marks, err)
		}
	}
}
