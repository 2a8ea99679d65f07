package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"
)

func TestAValueIsFoundInEveryForm(t *testing.T) {
	value, n := canary("it")
	encode := func(around string) string { return base64.StdEncoding.EncodeToString([]byte(around + value + around)) }
	wide := new(bytes.Buffer)
	for _, unit := range utf16.Encode([]rune(value)) {
		wide.Write([]byte{byte(unit), byte(unit >> 8)})
	}
	for form, text := range map[string]string{
		"plain": value, "hex": hex.EncodeToString([]byte(value)), "UTF-16": wide.String(),
		"base64": encode(""), "base64 after one byte": encode("a"), "base64 after two": encode("ab"),
	} {
		found, err := search(strings.NewReader("before "+text+" after"), n)
		if err != nil || !slices.Equal(found, []string{"it"}) {
			t.Errorf("%s: found %q (%v), want it", form, found, err)
		}
	}
	if found, err := search(strings.NewReader(strings.ToLower(value)), n); err != nil || len(found) > 0 {
		t.Errorf("found %q (%v) in another text", found, err)
	}
}

func TestAValueIsFoundAcrossTwoReads(t *testing.T) {
	value, n := canary("it")
	for _, before := range []int{0, searchChunk - len(value), searchChunk - 1, searchChunk - len(value) + 1, 2*searchChunk - 5} {
		found, err := search(strings.NewReader(strings.Repeat(".", before)+value), n)
		if err != nil || len(found) != 1 {
			t.Errorf("behind %d bytes: found %q (%v), want it", before, found, err)
		}
	}
}

func TestTheSearchOfADiskSkipsHolesOnly(t *testing.T) {
	first, one := canary("one")
	last, two := canary("two")
	_, three := canary("three")
	path := filepath.Join(t.TempDir(), "disk")
	disk, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	for offset, text := range map[int64]string{5: first, 64 << 20: last} {
		if _, err := disk.WriteAt([]byte(text), offset); err != nil {
			t.Fatal(err)
		}
	}
	if err := disk.Truncate(1 << 30); err != nil {
		t.Fatal(err)
	}
	found, size, err := searchDisk(t.Context(), path, one, two, three)
	if err != nil || !slices.Equal(found, []string{"one", "two"}) {
		t.Errorf("found %q (%v), want one and two", found, err)
	}
	if size > 1<<20 {
		t.Errorf("read %d bytes, although the disk is mostly holes", size)
	}
}
