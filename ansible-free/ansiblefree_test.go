package ansiblefree

import (
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
)

func TestEveryEmbeddedFileHasExactlyOnePlaceOnANode(t *testing.T) {
	sources, paths := map[string]int{}, map[string]int{}
	for _, f := range Files(Profiles...) {
		sources[f.Source]++
		paths[f.Path]++
		if len(f.Content()) == 0 {
			t.Errorf("%s is empty", f.Source)
		}
		if f.Path != path.Clean(f.Path) || !path.IsAbs(f.Path) {
			t.Errorf("%s: got the path %q, want a clean absolute one", f.Source, f.Path)
		}
	}
	err := fs.WalkDir(embedded, ".", func(name string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && sources[name] != 1 {
			t.Errorf("%s: got %d places in the table, want 1", name, sources[name])
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for p, n := range paths {
		if n != 1 {
			t.Errorf("%d files would be installed as %s, want 1", n, p)
		}
	}
	// What is added to a directory that nobody embeds would be forgotten. Seeds are for hypervisors, not for the image.
	err = fs.WalkDir(os.DirFS("."), ".", func(name string, entry fs.DirEntry, err error) error {
		seed := strings.HasPrefix(name, "cloud-init/") && !strings.HasPrefix(name, "cloud-init/image/")
		if err == nil && !entry.IsDir() && strings.Contains(name, "/") && !seed && sources[name] == 0 {
			t.Errorf("%s is not embedded", name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsExecutedIsExecutableAndNothingElse(t *testing.T) {
	for _, f := range Files(Profiles...) {
		want := fs.FileMode(0o644)
		if strings.HasPrefix(string(f.Content()), "#!") {
			want = 0o755
		}
		if f.Mode != want {
			t.Errorf("%s: got mode %v, want %v", f.Source, f.Mode, want)
		}
	}
}

func TestProfilesAreInOrderAndAlwaysHaveTheAgent(t *testing.T) {
	got, err := ParseProfiles([]string{"hardening", "base", "hardening"})
	if want := []Profile{Agent, Base, Hardening}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	if got, err = ParseProfiles(nil); err != nil || !slices.Equal(got, []Profile{Agent}) {
		t.Errorf("of none: got %v, %v; want the agent", got, err)
	}
	_, err = ParseProfiles([]string{"cis"})
	if err == nil || !strings.Contains(err.Error(), `"cis" is unknown`) || !strings.Contains(err.Error(), "agent, base, ec2, hardening") {
		t.Errorf("got %v, want the name and what there is", err)
	}
}

func TestUnitsThatAreEnabledAreInstalled(t *testing.T) {
	for _, profiles := range [][]Profile{{Agent}, {Agent, Hardening}} {
		var installed []string
		for _, f := range Files(profiles...) {
			installed = append(installed, path.Base(f.Path))
		}
		for _, unit := range UnitsOf(profiles...).Enable {
			if !slices.Contains(installed, unit) {
				t.Errorf("profiles %v enable %s and don't have it", profiles, unit)
			}
		}
	}
}
