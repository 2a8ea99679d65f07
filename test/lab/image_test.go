package lab_test

import (
	"testing"

	"github.com/moby/moby/client"

	"github.com/flowviz/flowagent/test/lab"
)

// Else whoever removes the last reference to an image would remove it from under one who is about to add another.
func TestEachReferenceHasAnImageOfItsOwn(t *testing.T) {
	t.Parallel()
	engine, err := client.New(client.WithHost(lab.Engine(t)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = engine.Close() })
	references := map[string]string{}
	for _, ref := range []string{"lab/one:1", "lab/other:1"} {
		lab.AppImage(t, ref)
		found, err := engine.ImageInspect(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		if other, taken := references[found.ID]; taken {
			t.Errorf("%s and %s are both %s, want two images", other, ref, found.ID)
		}
		references[found.ID] = ref
	}
}
