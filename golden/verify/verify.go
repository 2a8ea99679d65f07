// Package verify proves that a system's disk is fit to be cloned: sealed, complete, and without a credential on it.
//
// What enters is the root directory of a system and what it is to be a node for; what leaves is a list of checks, each with
// its reason. A check that can't be made has failed. It changes nothing, follows no symbolic link out of the root directory,
// and never shows a credential that it finds, only where it is.
//
// On the running system it asks more: the Docker Engine for its images, the kernel for open ports. Of a disk that isn't
// running, the engine's own files say which images there are. Files below what is mounted over them are not seen, nor is
// what was deleted and still lies in free blocks.
package verify

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/flowviz/flowagent/golden/dpkg"
	"github.com/flowviz/flowagent/golden/seal"
	"github.com/flowviz/flowagent/golden/target"
)

// Status is what became of a check.
type Status string

const (
	OK      Status = "ok"
	Failed  Status = "FAIL"
	Skipped Status = "skipped"
)

// Check is one thing that was looked at.
type Check struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
	// Reason says what was found, or what is wrong and what to do.
	Reason string `json:"reason"`
	// Findings are the places that failed it.
	Findings []string `json:"findings,omitempty"`
}

// Report is what verifying found.
type Report struct {
	Root string `json:"root"`
	// OK: no check has failed.
	OK     bool    `json:"ok"`
	Checks []Check `json:"checks"`
}

// ErrUnknownCheck says that [Options.Skip] names something that isn't a check.
var ErrUnknownCheck = errors.New("unknown check")

// ErrPattern says that [Options.AllowFiles] has something that isn't a pattern.
var ErrPattern = errors.New("not a pattern")

// Options say what to verify.
type Options struct {
	// Root is the system's root directory.
	Root string
	// Config is the path of the main configuration file in that system.
	Config string
	// AllowPorts may be listened on beside the port of health.listen.
	AllowPorts []Port
	// AllowFiles are patterns, as in [path.Match], of files in which credentials may be, such as the test keys of a library.
	// They are paths from the root directory, of the system or of an image.
	AllowFiles []string
	// Keep has the kinds that sealing was told to keep.
	Keep []string
	// Skip has the names of checks that are left out, and said to be.
	Skip []string
}

// check is how one is made. It returns what it found; an error is what is wrong, and findings where.
type check struct {
	name string
	run  func(*verifier) (reason string, err error)
}

// checks in the order of the report: what the image has, what it is, and what it must not have.
var checks = []check{
	{"agent", (*verifier).agent},
	{"configuration", (*verifier).configuration},
	{"configuration files", (*verifier).configurationFiles},
	{"units", (*verifier).units},
	{"engine", (*verifier).engine},
	{"compose plugin", (*verifier).composePlugin},
	{"images", (*verifier).images},
	{"identity", (*verifier).identity},
	{"passwords", (*verifier).passwords},
	{"ports", (*verifier).ports},
	{"world-writable", (*verifier).worldWritable},
	{"privileged files", (*verifier).privileged},
	{"credentials", (*verifier).credentials},
}

// Checks are the names of all checks, in their order.
func Checks() []string {
	var names []string
	for _, c := range checks {
		names = append(names, c.name)
	}
	return names
}

// findings is an error with the places that it is about.
type findings struct {
	message string
	places  []string
}

func (f *findings) Error() string { return f.message }

// skip is an error that says why there is nothing to check in this system.
type skip string

func (s skip) Error() string { return string(s) }

// Verify makes every check, in spite of those that fail. The error says that none was made.
func Verify(ctx context.Context, opts Options) (Report, error) {
	report := Report{Root: opts.Root, OK: true, Checks: []Check{}}
	for _, name := range opts.Skip {
		if !slices.Contains(Checks(), name) {
			return report, fmt.Errorf("%w %q: use %s", ErrUnknownCheck, name, strings.Join(Checks(), ", "))
		}
	}
	for _, pattern := range opts.AllowFiles {
		if _, err := path.Match(pattern, ""); err != nil {
			return report, fmt.Errorf("%w %q: see the characters * ? [ ] and \\ in it", ErrPattern, pattern)
		}
	}
	for _, name := range opts.Keep {
		if !slices.Contains(seal.Kinds(), name) {
			return report, fmt.Errorf("%w %q: use %s", seal.ErrUnknownKind, name, strings.Join(seal.Kinds(), ", "))
		}
	}
	system, err := target.Open(opts.Root)
	if err != nil {
		return report, fmt.Errorf("verify %s: %w", opts.Root, err)
	}
	defer system.Root.Close()
	v := &verifier{Target: system, ctx: ctx, opts: opts}
	v.node, v.nodeErr = v.Load(ctx, opts.Config)
	v.packages, v.packagesErr = dpkg.Packages(v.Root)
	for _, c := range checks {
		made := Check{Name: c.name, Status: Skipped, Reason: "asked for with --skip"}
		if !slices.Contains(opts.Skip, c.name) {
			made = v.make(c)
		}
		report.OK = report.OK && made.Status != Failed
		report.Checks = append(report.Checks, made)
	}
	if ctx.Err() != nil {
		return report, fmt.Errorf("verify %s: %w", opts.Root, context.Cause(ctx))
	}
	return report, nil
}

func (v *verifier) make(c check) Check {
	reason, err := c.run(v)
	made := Check{Name: c.name, Status: OK, Reason: reason}
	var places *findings
	var nothing skip
	switch {
	case errors.As(err, &nothing):
		made.Status, made.Reason = Skipped, nothing.Error()
	case errors.As(err, &places):
		made.Status, made.Reason, made.Findings = Failed, places.message, places.places
	case err != nil:
		made.Status, made.Reason = Failed, err.Error()
	}
	return made
}

// verifier verifies one system.
type verifier struct {
	*target.Target
	ctx  context.Context
	opts Options

	node        *target.Node // nil, or without its project, with nodeErr
	nodeErr     error
	packages    []dpkg.Package
	packagesErr error
	walked      *walk // nil until a check needs it
}

// counted is a number of things.
func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
