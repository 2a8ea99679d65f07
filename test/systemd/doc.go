// Package systemd runs the agent as an operator installs it: `make install` on a Debian machine of package lab, under a
// real systemd and beside a real Docker Engine. What enters are the units of ansible-free/systemd; what leaves are failures
// that say which promise about the service is broken: its start, its port, its sandbox, its log, its restarts. It has tests
// only; what the agent does without systemd is in test/e2e.
package systemd
