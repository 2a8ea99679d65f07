package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
)

// runTests runs go test with the given arguments and reports on out. It returns go's own exit code, or 1 where only a
// skipped test under CI stands against success.
func runTests(arguments []string, out io.Writer, ci bool) (int, error) {
	cmd := exec.Command("go", append([]string{"test", "-json"}, arguments...)...)
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	// They reach the tests as well, in the same process group, and the report is still wanted.
	signals := make(chan os.Signal, len(forwarded))
	signal.Notify(signals, forwarded...)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("run go test: %w", err)
	}
	r := newReport(out)
	readErr := r.read(events)
	err = cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	if readErr != nil {
		return 0, fmt.Errorf("read go test's events: %w", readErr)
	}
	r.close(ci)
	code := cmd.ProcessState.ExitCode()
	switch {
	case code < 0: // a signal ended it
		return exitFailed, nil
	case code == 0 && (r.failed > 0 || ci && len(r.skipped) > 0):
		return exitFailed, nil
	}
	return code, nil
}

// event is one line of go test -json, as `go doc test2json` and `go help buildjson` describe it.
type event struct {
	Action     string
	Package    string
	ImportPath string // of a build-output or build-fail, in the place of Package
	Test       string
	Output     string
	Elapsed    float64 // seconds
}

// report counts tests and collects the output of those that matter. A test that has subtests is no test of its own
// unless it fails by itself, so that the counts add up.
type report struct {
	out            io.Writer
	passed, failed int
	skipped        []string // "package test: reason"
	packages       map[string]*packageReport
	ended          int // packages
}

type packageReport struct {
	output  strings.Builder // of the package itself: a panic outside tests, a failed TestMain
	tests   map[string]*testReport
	passed  int
	failed  int
	skipped int
}

type testReport struct {
	output      strings.Builder
	hasSubtests bool
	subFailed   bool
}

func newReport(out io.Writer) *report {
	return &report{out: out, packages: map[string]*packageReport{}}
}

// read consumes events until their end. A line that isn't one, which go prints before it starts, is passed on.
func (r *report) read(events io.Reader) error {
	lines := bufio.NewReader(events)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) == nil && e.Action != "" {
				r.event(e)
			} else {
				_, _ = r.out.Write(line)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *report) event(e event) {
	if e.Action == "build-output" {
		_, _ = io.WriteString(r.out, e.Output)
		return
	}
	if e.Package == "" {
		return
	}
	p := r.packages[e.Package]
	if p == nil {
		p = &packageReport{tests: map[string]*testReport{}}
		r.packages[e.Package] = p
	}
	if e.Test == "" {
		r.packageEvent(p, e)
		return
	}
	t := p.tests[e.Test]
	if t == nil {
		t = &testReport{}
		p.tests[e.Test] = t
		if parent := p.parentOf(e.Test); parent != nil {
			parent.hasSubtests = true
		}
	}
	r.testEvent(p, t, e)
}

// parentOf returns the test under which name ran, or nil.
func (p *packageReport) parentOf(name string) *testReport {
	slash := strings.LastIndexByte(name, '/')
	if slash < 0 {
		return nil
	}
	if parent := p.tests[name[:slash]]; parent != nil {
		return parent
	}
	return p.parentOf(name[:slash]) // the name of a subtest may hold slashes of its own
}

func (r *report) testEvent(p *packageReport, t *testReport, e event) {
	switch e.Action {
	case "output":
		t.output.WriteString(e.Output)
		return
	case "pass":
		if !t.hasSubtests {
			p.passed++
		}
	case "skip":
		p.skipped++
		r.skipped = append(r.skipped, fmt.Sprintf("%s %s: %s", shortName(e.Package), e.Test, reason(t.output.String())))
	case "fail":
		if !t.subFailed {
			p.failed++
		}
		if parent := p.parentOf(e.Test); parent != nil {
			parent.subFailed = true
		}
		fmt.Fprintf(r.out, "FAIL %s %s\n%s", shortName(e.Package), e.Test, indent(t.output.String()))
	default:
		return
	}
	t.output.Reset() // and so it counts as ended; the rest of the entry tells later subtests whose they are
}

func (r *report) packageEvent(p *packageReport, e event) {
	switch e.Action {
	case "output":
		p.output.WriteString(e.Output)
		return
	case "pass", "fail", "skip":
	default:
		return
	}
	r.ended++
	name := shortName(e.Package)
	switch {
	case e.Action == "fail":
		r.unfinished(p, e.Package)
		if p.failed == 0 {
			p.failed++ // it didn't build, or it broke outside its tests: that is one failure
		}
		fmt.Fprintf(r.out, "FAIL %s  %.1f s\n%s", name, e.Elapsed, indent(p.output.String()))
	case p.passed+p.skipped == 0:
		fmt.Fprintf(r.out, "     %s  no tests\n", name)
	default:
		fmt.Fprintf(r.out, "ok   %s  %d passed%s  %.1f s\n", name, p.passed, skippedNote(p.skipped), e.Elapsed)
	}
	r.passed += p.passed
	r.failed += p.failed
	p.tests = nil
}

// unfinished shows the output of tests that neither passed nor failed, because their process ended first.
func (r *report) unfinished(p *packageReport, pkg string) {
	for _, name := range slices.Sorted(maps.Keys(p.tests)) {
		if t := p.tests[name]; t.output.Len() > 0 {
			fmt.Fprintf(r.out, "FAIL %s %s (it never ended)\n%s", shortName(pkg), name, indent(t.output.String()))
			p.failed++
		}
	}
}

// close prints what was skipped, and the counts.
func (r *report) close(ci bool) {
	if len(r.skipped) > 0 {
		verdict := "not run on this machine"
		if ci {
			verdict = "skipped, which is a failure under CI"
		}
		fmt.Fprintf(r.out, "\n%s:\n%s", verdict, indent(strings.Join(slices.Sorted(slices.Values(r.skipped)), "\n")))
	}
	fmt.Fprintf(r.out, "\n%d passed, %d failed, %d skipped in %d packages\n", r.passed, r.failed, len(r.skipped), r.ended)
}

func skippedNote(count int) string {
	if count == 0 {
		return ""
	}
	return fmt.Sprintf(", %d skipped", count)
}

const modulePrefix = "github.com/flowviz/flowagent/"

func shortName(pkg string) string { return strings.TrimPrefix(pkg, modulePrefix) }

// reason is what a test said before it was skipped, on one line.
func reason(output string) string {
	var said []string
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			said = append(said, line)
		}
	}
	return strings.Join(said, " ")
}

// indent puts text on lines of its own, without the bookkeeping of go test that the report replaces.
func indent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if line == "" || line == "PASS" || line == "FAIL" || strings.HasPrefix(line, "=== ") || strings.HasPrefix(line, "FAIL\t") {
			continue
		}
		b.WriteString("    " + line + "\n")
	}
	return b.String()
}
