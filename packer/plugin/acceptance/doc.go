// Package acceptance runs Packer itself with the plugin, over SSH, against a real Debian 13 machine of test/lab: what is
// asserted is what a person sees of `packer build` and what is on the machine afterwards. It has no code of its own but
// tests, and runs in a lab (scripts/test.sh).
//
// The flowagent on the machine is a fake (fakeagent), which notes what it is told and fails, or never ends, on demand.
package acceptance
