// Package nodefiles holds the files of ansible-free against what reads them: each kind against its own checker, all of them
// together on a Debian machine of package lab that boots with them, and each role's cloud-init seed on a machine of its own.
// What enters is the binary, whose `flowagent image install` puts the files in place; what leaves are failures that name the
// file, or the promise of docs/guides/hardening.md that is broken. It has tests only.
//
// The machines have no network but the one that a test makes inside them, and no time server, mirror or cloud.
package nodefiles
