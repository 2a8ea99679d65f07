package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const moduleRoot = "../../../.."

func TestThePublishedDocumentsAreCurrent(t *testing.T) {
	comments, err := readComments(filepath.Join(moduleRoot, sourceDir))
	if err != nil {
		t.Fatal(err)
	}
	schema, err := schemaOf(comments)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string][]byte{schemaPath: schema, referencePath: referenceOf(comments)} {
		got, err := os.ReadFile(filepath.Join(moduleRoot, path))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s is not current, run 'go generate ./agent/config' (-want +got):\n%s", path, diff)
		}
	}
}

func TestEveryFieldHasAMeaning(t *testing.T) {
	comments, err := readComments(filepath.Join(moduleRoot, sourceDir))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"Config.Node", "Secret.From", "Drain.Budget", "OnChange.Signal"} {
		if comments[name] == "" {
			t.Errorf("no comment found for %s", name)
		}
	}
	for _, meaningless := range undocumented(comments) {
		t.Errorf("%s has no doc comment, so the reference says nothing about it", meaningless)
	}
}
