package acceptance

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBakesANodeInOrder(t *testing.T) {
	g := newTarget(t, "")
	out, err := packer("build", g.template(nil)).CombinedOutput()
	if err != nil {
		t.Fatalf("packer build: %v\n%s", err, out)
	}
	want := []string{
		"image install", "config validate", "image pull", "image sbom --format spdx", "image sbom --format cyclonedx",
		"image seal --yes", "image verify --allow-port=22",
	}
	if diff := cmp.Diff(want, g.calls()); diff != "" {
		t.Errorf("the agent's commands on the target (-want +got):\n%s", diff)
	}
}
