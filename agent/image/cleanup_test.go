package image

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/flowviz/flowagent/agent/config"
)

const cleanRepository = "agent-image-clean/"

// stock is an engine with images app:1 (oldest) to app:5 and others.
type stock struct {
	engine *client.Client
	left   int64 // what diskFree says
}

func newStock(t *testing.T) *stock {
	t.Helper()
	s := &stock{engine: connectEngine(t), left: 1}
	t.Cleanup(func() { removeAll(t, s.engine, cleanRepository, "agent-image-foreign/") })
	for _, name := range []string{"app:1", "app:2", "app:3", "app:4", "app:5", "db:1"} {
		importImage(t, s.engine, cleanRepository+name, 10)
	}
	return s
}

func (s *stock) diskFree(string) (int64, error) { return s.left, nil }

func (s *stock) clean(t *testing.T, cfg config.CleanUp, refs ...string) []string {
	t.Helper()
	for i := range refs {
		refs[i] = cleanRepository + refs[i]
	}
	removed, err := CleanUp(t.Context(), s.engine, cfg, refs, s.diskFree, nil)
	if err != nil {
		t.Fatal(err)
	}
	return removed
}

func (s *stock) want(t *testing.T, names ...string) {
	t.Helper()
	listed, err := s.engine.ImageList(t.Context(), client.ImageListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, summary := range listed.Items {
		for _, tag := range summary.RepoTags {
			if name, ours := strings.CutPrefix(tag, cleanRepository); ours {
				got = append(got, name)
			}
		}
	}
	if diff := cmp.Diff(names, got, cmpopts.SortSlices(strings.Compare)); diff != "" {
		t.Errorf("images left (-want +got):\n%s", diff)
	}
}

func TestCleanUpKeepsWhatIsWantedUsedAndNew(t *testing.T) {
	s := newStock(t)
	made, err := s.engine.ContainerCreate(t.Context(), client.ContainerCreateOptions{
		Name:   "agent-image-clean-stopped",
		Config: &container.Config{Image: cleanRepository + "app:1", Cmd: []string{"/never-run"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // the test's own context is done by now
		defer cancel()
		_, _ = s.engine.ContainerRemove(ctx, made.ID, client.ContainerRemoveOptions{Force: true})
	})
	removed := s.clean(t, config.CleanUp{Keep: 1, MinFree: 1 << 30}, "app:5")
	// app:1 has a stopped container, app:5 is wanted, app:4 is the newest other, db isn't the workload's.
	if diff := cmp.Diff([]string{cleanRepository + "app:2", cleanRepository + "app:3"}, removed); diff != "" {
		t.Errorf("removed (-want +got):\n%s", diff)
	}
	s.want(t, "app:1", "app:4", "app:5", "db:1")
}

func TestCleanUpDoesNothingWithoutPressure(t *testing.T) {
	s := newStock(t)
	s.left = 2 << 30
	for _, cfg := range []config.CleanUp{{Keep: 0, MinFree: 1 << 30}, {Keep: 0, MinFree: 0}} {
		if removed := s.clean(t, cfg, "app:5"); len(removed) > 0 {
			t.Errorf("minFree %s: got %v removed, want nothing", cfg.MinFree, removed)
		}
	}
	s.want(t, "app:1", "app:2", "app:3", "app:4", "app:5", "db:1")
}

func TestCleanUpStopsWhenThereIsEnoughSpace(t *testing.T) {
	s := newStock(t)
	asked := 0
	removed, err := CleanUp(t.Context(), s.engine, config.CleanUp{MinFree: 100}, []string{cleanRepository + "app:5"}, func(string) (int64, error) {
		asked++
		return int64(asked * 40), nil // 40 before, 80 after one, 120 after two
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{cleanRepository + "app:1", cleanRepository + "app:2"}, removed); diff != "" {
		t.Errorf("removed, oldest first (-want +got):\n%s", diff)
	}
}

func TestCleanUpLeavesNamesInOtherRepositories(t *testing.T) {
	s := newStock(t)
	const foreign = "agent-image-foreign/app:1"
	if _, err := s.engine.ImageTag(t.Context(), client.ImageTagOptions{Source: cleanRepository + "app:1", Target: foreign}); err != nil {
		t.Fatal(err)
	}
	s.clean(t, config.CleanUp{MinFree: 1 << 30}, "app:5", "db:1")
	s.want(t, "app:5", "db:1")
	if _, ok, err := inspect(t.Context(), s.engine, foreign); !ok || err != nil {
		t.Errorf("%s: got none (%v), want it untouched", foreign, err)
	}
}

func TestCleanUpFindsImagesThatLostTheirTag(t *testing.T) {
	f := newFront(t)
	cfg := pulls()
	cfg.Policy = config.PullAlways
	puller, _ := f.puller(cfg)
	var digests []string
	for range 3 { // the tag moves, the images stay under their digests
		digests = append(digests, f.push(t, "moved:latest", 10))
		if _, err := puller.Ensure(t.Context(), []string{f.ref("moved")}); err != nil {
			t.Fatal(err)
		}
	}
	removed, err := CleanUp(t.Context(), f.engine, config.CleanUp{Keep: 1, MinFree: 1 << 30}, []string{f.ref("moved")}, func(string) (int64, error) { return 0, nil }, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{f.ref("moved") + "@" + digests[0]}, removed); diff != "" {
		t.Errorf("removed (-want +got):\n%s", diff)
	}
	for i, digest := range digests {
		if _, ok, err := inspect(t.Context(), f.engine, f.ref("moved")+"@"+digest); err != nil || ok == (i == 0) {
			t.Errorf("image %d: got %t, %v, want the first gone and the others there", i, ok, err)
		}
	}
}

func TestCleanUpSaysWhereItCouldNotLookForSpace(t *testing.T) {
	engine := connectEngine(t)
	full := errors.New("no statfs")
	_, err := CleanUp(t.Context(), engine, config.CleanUp{MinFree: 1}, []string{"x:1"}, func(string) (int64, error) { return 0, full }, nil)
	if !errors.Is(err, full) || !strings.Contains(err.Error(), "/") {
		t.Errorf("got %v, want the cause and the directory", err)
	}
}

func TestDiskFreeLooksAtTheFileSystem(t *testing.T) {
	if got, err := DiskFree(t.TempDir()); err != nil || got <= 0 {
		t.Errorf("got %d, %v, want some bytes", got, err)
	}
	if _, err := DiskFree("/none/such"); err == nil {
		t.Error("a path that isn't there: got no error")
	}
}

func TestImagesOfTheSameSecondAreOrderedByWhenTheyCame(t *testing.T) {
	built := time.Unix(0, 0) // as reproducible builds say
	came := func(id string, hour int) removable {
		return removable{id: id, created: built, tagged: time.Unix(int64(hour)*3600, 0)}
	}
	all := []removable{came("c", 3), came("a", 2), came("b", 1), {id: "new", created: built.Add(time.Hour)}}
	slices.SortFunc(all, func(a, b removable) int { return byAge(&a, &b) })
	var got []string
	for _, one := range all {
		got = append(got, one.id)
	}
	if diff := cmp.Diff([]string{"b", "a", "c", "new"}, got); diff != "" {
		t.Errorf("oldest first (-want +got):\n%s", diff)
	}
}
