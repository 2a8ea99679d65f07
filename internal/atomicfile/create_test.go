package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

func TestOfManyThatCreateAFileExactlyOneDoes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	results := make(chan error, 8) // enough to collide on two cores
	var start sync.WaitGroup
	start.Add(1)
	for range cap(results) {
		go func() {
			start.Wait()
			results <- Create(path, []byte("whole"), 0o644)
		}()
	}
	start.Done()
	created := 0
	for range cap(results) {
		switch err := <-results; {
		case err == nil:
			created++
		case !errors.Is(err, fs.ErrExist):
			t.Errorf("got %v, want fs.ErrExist", err)
		}
	}
	if created != 1 {
		t.Errorf("%d wrote the file, want 1", created)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "whole" {
		t.Errorf("file: got %q, %v", got, err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("got %v, %v; want nothing beside the file", entries, err)
	}
}
