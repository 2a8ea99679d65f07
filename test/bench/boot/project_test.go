package main

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/workload"
	"github.com/flowviz/flowagent/test/bench/command"
)

// The bench itself takes minutes and a lab; that its project still is one shows here.
func TestProject_IsWhatTheAgentAndTheBenchExpect(t *testing.T) {
	t.Chdir("../project")
	loaded, err := config.Load("config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	project, err := workload.Load(t.Context(), loaded.Config.Workload, t.TempDir(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	want := slices.Sorted(slices.Values(services))
	if diff := cmp.Diff(want, project.Services()); diff != "" {
		t.Errorf("services (-want +got):\n%s", diff)
	}
	for _, name := range services {
		if got, want := project.ImageOf(name), imageOf(name); got != want {
			t.Errorf("image of %s: got %q, want %q", name, got, want)
		}
	}
	uses := project.Secrets()
	if len(uses) != len(services) {
		t.Errorf("got %d uses of secrets, want one of each of the %d services", len(uses), len(services))
	}
	for _, use := range uses {
		if use.Item != loaded.Config.Secrets.Items[0].Name {
			t.Errorf("service %s: got secret %q, want %q", use.Service, use.Item, loaded.Config.Secrets.Items[0].Name)
		}
	}
	if host := loaded.Config.Registries[0].Host; host != registry {
		t.Errorf("got registry %q, want %q", host, registry)
	}
}

func TestRun_RefusesWhatItCantDo(t *testing.T) {
	for _, arguments := range [][]string{
		nil,
		{"-flowagent", "x", "-rounds", "0"},
		{"-flowagent", "x", "-scenario", "warm"},
		{"-flowagent", "x", "more"},
		{"-no-such-flag"},
	} {
		if err := run(arguments); err == nil || !strings.Contains(err.Error(), command.ErrUsage.Error()) {
			t.Errorf("%q: got %v, want %v", arguments, err, command.ErrUsage)
		}
	}
}

func TestRun_BootsNothingOutsideALab(t *testing.T) {
	t.Setenv("FLOWAGENT_LAB", "")
	if err := run([]string{"-flowagent", filepath.Join(t.TempDir(), "flowagent")}); err == nil || !strings.Contains(err.Error(), "test/bench/run.sh") {
		t.Errorf("got %v, want it to name the way into a lab", err)
	}
}
