//go:build !linux

package main

// crashLoudly leaves Go's default: there is no systemd here.
func crashLoudly() {}
