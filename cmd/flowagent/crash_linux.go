package main

import (
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// crashLoudly has a crash of the agent end it by SIGABRT, with what every goroutine was at. By default Go ends a crash, and
// SIGABRT from a watchdog, with exit code 2, which is how the agent says that its configuration is wrong: systemd must not
// take the one for the other, and starts it again after a crash.
//
// A core file would have every secret in it, so none may be made. Where that can't be had, Go's default stays.
func crashLoudly() {
	if unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) == nil {
		debug.SetTraceback("crash")
	}
}
