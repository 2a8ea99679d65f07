package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/workload"
	"github.com/flowviz/flowagent/test/bench/command"
)

// The bench itself takes minutes and a lab; that its node still is one shows here.
func TestNode_HasTenChecksEveryFiveSeconds(t *testing.T) {
	dir := t.TempDir()
	content, err := os.ReadFile("node/config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(string(content), place, "5432")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(dir, os.DirFS("node")); err == nil || !strings.Contains(err.Error(), "config.yaml") {
		// CopyFS writes in the order of names, and stops at the file that is there.
		t.Fatalf("got %v, want only config.yaml to be there", err)
	}
	loaded, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := len(loaded.Config.Health.Checks); got != 10 {
		t.Errorf("got %d checks, want 10", got)
	}
	for _, c := range loaded.Config.Health.Checks {
		if got := time.Duration(c.Interval); got != 5*time.Second {
			t.Errorf("check %s: got an interval of %v, want 5s", c.Name, got)
		}
	}
	loadedProject, err := workload.Load(t.Context(), loaded.Config.Workload, dir, dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := loadedProject.Name(); got != project {
		t.Errorf("got project %q, want %q", got, project)
	}
	if diff := cmp.Diff([]string{appImage}, loadedProject.Images()); diff != "" {
		t.Errorf("images (-want +got):\n%s", diff)
	}
}

func TestCost_CountsEachSliceAndTheWhole(t *testing.T) {
	began := time.Unix(0, 0)
	samples := []sample{
		{at: began},
		{at: began.Add(10 * time.Second), used: 10 * time.Millisecond, memory: memory{resident: 20e6, anonymous: 9e6, file: 11e6, proportional: 19e6}},
		{at: began.Add(20 * time.Second), used: 50 * time.Millisecond, memory: memory{resident: 26e6, anonymous: 15e6, file: 11e6, proportional: 25e6}},
	}
	var b strings.Builder
	if err := costOf(samples).print(&b, 21_045_410); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"resident                23.0 MB (20.0–26.0)",
		"processor, of one core  0.25 % (0.10–0.40)",
		"at most: 26.0 MB; at most 25: beyond",
		"0.250 % of one core; at most 0.2: beyond",
		"stripped binary: 21.0 MB; at most 30: within",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("got\n%s\nwant %q in it", b.String(), want)
		}
	}
}

func TestUsage_OfThisProcess(t *testing.T) {
	m, err := memoryOf("/proc/self")
	if err != nil {
		t.Fatal(err)
	}
	if m.anonymous <= 0 || m.file <= 0 || m.anonymous+m.file != m.resident || m.proportional > m.resident {
		t.Errorf("got %+v, want parts that add up", m)
	}
	before, err := processorTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		_ = fmt.Sprint(i)
	}
	after, err := processorTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if before <= 0 || after <= before {
		t.Errorf("got %v and then %v, want it to grow", before, after)
	}
}

func TestRun_RefusesWhatItCantDo(t *testing.T) {
	for _, arguments := range [][]string{nil, {"-flowagent", "x", "-window", "1s"}, {"-flowagent", "x", "more"}, {"-no-such-flag"}} {
		if err := run(arguments); err == nil || !strings.Contains(err.Error(), command.ErrUsage.Error()) {
			t.Errorf("%q: got %v, want %v", arguments, err, command.ErrUsage)
		}
	}
}

func TestRun_BootsNothingOutsideALab(t *testing.T) {
	t.Setenv("FLOWAGENT_LAB", "")
	if err := run([]string{"-flowagent", os.Args[0]}); err == nil || !strings.Contains(err.Error(), "test/bench/run.sh") {
		t.Errorf("got %v, want it to name the way into a lab", err)
	}
}
