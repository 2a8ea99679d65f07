package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestThePageIsInStepWithTheModules(t *testing.T) {
	want, err := render("../../../infrastructure")
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join("../../..", page))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is out of step with infrastructure/: run go -C test/infra run ./tables", page)
	}
}

func TestAModuleWithoutDescriptionsIsRefused(t *testing.T) {
	dir := t.TempDir()
	for _, m := range modules {
		if err := os.MkdirAll(filepath.Join(dir, m.dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "variables.tf"), []byte("variable \"mute\" {\n  type = string\n}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := render(dir); err == nil {
		t.Error("a variable without a description: got no error")
	}
}
