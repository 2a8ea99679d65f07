package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// runModule runs the tests of a module made of the given files, and returns the exit code and the report.
func runModule(t *testing.T, ci bool, files map[string]string) (int, string) {
	t.Helper()
	dir := t.TempDir()
	files["go.mod"] = "module example.test\n\ngo 1.26\n"
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	var out strings.Builder
	code, err := runTests([]string{"./..."}, &out, ci)
	if err != nil {
		t.Fatal(err)
	}
	return code, out.String()
}

func wantInOrder(t *testing.T, report string, parts ...string) {
	t.Helper()
	rest := report
	for _, part := range parts {
		_, after, found := strings.Cut(rest, part)
		if !found {
			t.Fatalf("no %q at its place in the report:\n%s", part, report)
		}
		rest = after
	}
}

const mixedTests = `package mixed
import "testing"
func TestPasses(t *testing.T) { t.Log("of no interest") }
func TestSkips(t *testing.T)  { t.Skip("no engine here") }
func TestTree(t *testing.T) {
	t.Run("one", func(t *testing.T) {})
	t.Run("two/deep", func(t *testing.T) {})
}
`

func TestReportCountsLeavesAndNamesSkips(t *testing.T) {
	code, report := runModule(t, false, map[string]string{"mixed/mixed_test.go": mixedTests, "none/none.go": "package none\n"})
	if code != 0 {
		t.Errorf("got exit code %d, want 0", code)
	}
	wantInOrder(t, report, "ok   example.test/mixed  3 passed, 1 skipped", "TestSkips: mixed_test.go:4: no engine here",
		"3 passed, 0 failed, 1 skipped in 2 packages\n")
	if strings.Contains(report, "of no interest") {
		t.Errorf("the report shows the output of a test that passed:\n%s", report)
	}
}

func TestSkipIsFailureUnderCI(t *testing.T) {
	code, report := runModule(t, true, map[string]string{"mixed_test.go": mixedTests})
	if code != exitFailed {
		t.Errorf("got exit code %d, want %d", code, exitFailed)
	}
	wantInOrder(t, report, "skipped, which is a failure under CI:", "TestSkips")
}

func TestReportShowsFailuresOnce(t *testing.T) {
	code, report := runModule(t, false, map[string]string{"fails_test.go": `package fails
import "testing"
func TestParent(t *testing.T) {
	t.Run("good", func(t *testing.T) {})
	t.Run("bad", func(t *testing.T) { t.Error("got 1, want 2") })
}
`})
	if code != 1 {
		t.Errorf("got exit code %d, want 1", code)
	}
	wantInOrder(t, report, "FAIL example.test TestParent/bad\n", "got 1, want 2", "FAIL example.test  ",
		"1 passed, 1 failed, 0 skipped in 1 packages\n")
	if n := strings.Count(report, "got 1, want 2"); n != 1 {
		t.Errorf("the message appears %d times, want once:\n%s", n, report)
	}
}

func TestReportShowsWhatBrokeOutsideTests(t *testing.T) {
	for name, test := range map[string]struct{ source, want string }{
		"panic in a goroutine": {`package broken
import "testing"
func TestWaits(t *testing.T) {
	go func() { panic("in a goroutine") }()
	select {}
}
`, "panic: in a goroutine"},
		"exit in TestMain": {`package broken
import ("fmt"; "os"; "testing")
func TestMain(*testing.M) { fmt.Println("no luck"); os.Exit(3) }
`, "no luck"},
		"does not build": {`package broken
func nothing() { return 1 }
`, "too many return values"},
	} {
		t.Run(name, func(t *testing.T) {
			code, report := runModule(t, false, map[string]string{"broken_test.go": test.source})
			if code == 0 {
				t.Error("got exit code 0, want another")
			}
			wantInOrder(t, report, test.want, "0 passed, 1 failed, 0 skipped in 1 packages\n")
		})
	}
}
