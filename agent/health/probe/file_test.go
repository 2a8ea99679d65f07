package probe

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestFile_AgeAndSizeDecide(t *testing.T) {
	tests := map[string]struct {
		file   *File
		age    time.Duration
		size   int
		status Status
		output string
	}{
		"any":                    {age: 400 * day, status: Pass, output: "is 400 days old"},
		"young enough":           {file: &File{FailAge: 26 * time.Hour}, age: 25 * time.Hour, status: Pass, output: "is 25h0m"},
		"worth a look":           {file: &File{WarnAge: 25 * time.Hour, FailAge: 49 * time.Hour}, age: 26 * time.Hour, status: Warn, output: "expected to be younger than 25h0m0s"},
		"too old":                {file: &File{FailAge: 26 * time.Hour}, age: 27 * time.Hour, status: Fail, output: ", too old by 1h0m"},
		"too small":              {file: &File{MinSize: 2048}, size: 10, status: Fail, output: ", but has only 10 B of at least 2.0 KiB"},
		"large enough":           {file: &File{MinSize: 10}, size: 10, status: Pass, output: "old"},
		"from the future":        {file: &File{FailAge: time.Hour}, age: -time.Hour, status: Warn, output: "is from the future, by "},
		"a moment in the future": {age: -time.Second, status: Pass, output: "old"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := test.file
			if p == nil {
				p = &File{}
			}
			p.Path = filepath.Join(t.TempDir(), "stamp")
			if err := os.WriteFile(p.Path, make([]byte, test.size), 0o600); err != nil {
				t.Fatal(err)
			}
			then := time.Now().Add(-test.age)
			if err := os.Chtimes(p.Path, then, then); err != nil {
				t.Fatal(err)
			}
			got := p.Probe(t.Context())
			expect(t, got, test.status, test.output)
			if got.Value == nil || *got.Value < test.age.Seconds()-1 || got.Unit != "s" {
				t.Errorf("got value %v %s, want about %v s", got.Value, got.Unit, test.age.Seconds())
			}
		})
	}
}

func TestFile_MustBeThereAndRegular(t *testing.T) {
	dir := t.TempDir()
	expect(t, (&File{Path: filepath.Join(dir, "none")}).Probe(t.Context()), Fail, "none does not exist")
	expect(t, (&File{Path: dir}).Probe(t.Context()), Fail, "is not a regular file")
	stamp, link := filepath.Join(dir, "stamp"), filepath.Join(dir, "link")
	if err := os.WriteFile(stamp, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(stamp, link); err != nil {
		t.Fatal(err)
	}
	expect(t, (&File{Path: link}).Probe(t.Context()), Pass, "link is ")
	expect(t, (&File{Path: filepath.Join(stamp, "below")}).Probe(t.Context()), Fail, "not a directory")
}
