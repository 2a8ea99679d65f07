package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestANewProfileStopsWhatLeftAndTouchesNothingThatStays(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/switched")
	n.boot().stop()
	before := n.boxes()
	n.dropIn("50-profile.yaml", "workload: {profiles: [green]}\n")
	n.boot()
	n.checkUntouched(before, "always")
	if got := slices.Sorted(maps.Keys(n.boxes())); !slices.Equal(got, []string{"always", "green"}) {
		t.Errorf("got containers of %q, want those of always and green", got)
	}
	n.checkReads("green", "/run/secrets/key", "key-number-one")
	if _, err := os.Stat(filepath.Join(n.store(), "blue")); err == nil {
		t.Error("the secrets of a service that left are still there")
	}
}

func TestANewImageRecreatesJustItsService(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/switched")
	n.useSlowRegistry()
	other := n.push(n.slow.address+"/"+n.project+"/app:2", nil)
	n.boot().stop()
	before := n.boxes()
	n.write("compose.green.yaml", fmt.Sprintf("services: {blue: {image: %q}}\n", other))
	n.dropIn("60-files.yaml", fmt.Sprintf("workload: {files: [%q, %q]}\n", filepath.Join(n.etc(), "compose.yaml"), filepath.Join(n.etc(), "compose.green.yaml")))
	n.boot()
	n.checkUntouched(before, "always")
	if n.boxes()["blue"].ID == before["blue"].ID {
		t.Error("the container of blue is the same, want one of the new image")
	}
}

func TestATagThatMovedRecreatesJustTheServicesThatUseIt(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/switched")
	n.useSlowRegistry()
	moving := n.push(n.slow.address+"/"+n.project+"/moving:1", nil)
	n.dropIn("60-files.yaml", "workload: {variables: {MOVING: "+moving+"}, pull: {policy: always}}\n")
	compose, err := os.ReadFile(filepath.Join(n.etc(), "compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	n.write("compose.yaml", strings.Replace(string(compose), "    image: ${APP}\n    command: [trap]", "    image: ${MOVING}\n    command: [trap]", 1))
	n.boot().stop()
	before := n.boxes()
	if image := n.container("blue").Config.Image; !strings.Contains(image, "@sha256:") {
		t.Errorf("blue runs %s, want it pinned to a digest", image)
	}
	n.boot().stop()
	n.checkUntouched(before)

	n.push(moving, map[string][]byte{"/etc/second": nil})
	n.boot()
	n.checkUntouched(before, "always")
	if n.boxes()["blue"].ID == before["blue"].ID {
		t.Error("the container of blue is the same, want one of the image that the tag names now")
	}
	if _, err := n.inside("blue", "cat", "/etc/second"); err != nil {
		t.Errorf("blue runs the old image: %v", err)
	}
}

func TestAnUpgradeOfTheAgentTouchesNoContainer(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/switched")
	n.boot().stop()
	before := n.boxes()
	store := tree(t, n.store())
	if code, _, err := n.tryHealth(); err == nil {
		t.Errorf("/health without an agent: got %d, want no answer", code)
	}
	n.checkUntouched(before)
	status := n.start().awaitReady()
	n.checkUntouched(before)
	if got := tree(t, n.store()); !maps.Equal(got, store) {
		t.Errorf("the store: got %v, want it as it was: %v", got, store)
	}
	for _, service := range status.Workload.Services {
		if service.Phase != "running" {
			t.Errorf("service %s: got %s, want running", service.Name, service.Phase)
		}
	}
	if code, body := n.health(); code != 200 {
		t.Errorf("/health: got %d %s, want 200", code, body)
	}
}
