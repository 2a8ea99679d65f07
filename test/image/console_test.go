package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestTheEarliestLineOfABootSaysWhenItsKernelBegan(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "console"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	power := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var now time.Time
	c := &console{file: file, now: func() time.Time { return now }}
	say := func(at time.Duration, text string) {
		now = power.Add(at)
		if _, err := c.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	check := func(when string, want time.Duration) {
		t.Helper()
		if got := c.kernelBegan().Sub(power); got != want {
			t.Errorf("%s: the kernel began %s after power on, want %s", when, got, want)
		}
	}
	say(1*time.Second, "SeaBIOS\r\n[no time] here\r\n")
	if !c.kernelBegan().IsZero() {
		t.Error("a kernel began before it said anything")
	}
	// The first lines were kept back until the console was found.
	say(4*time.Second, "[    0.000000] Linux version 6.12\r\n[    0.5")
	check("a line that was late", 4*time.Second)
	say(4500*time.Millisecond, "00000] Command line: ro\r\n")
	check("one cut in two", 4*time.Second)
	say(5*time.Second, "[    2.000000] virtio\r\n[   17.000000")
	check("one that was not", 3*time.Second)
	say(60*time.Second, "] bye\r\n[    0.000000] Linux version 6.12\r\n")
	check("another boot", 60*time.Second)
}
