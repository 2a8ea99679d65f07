package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// searchChunk is how much of a disk is looked at at once, in bytes.
const searchChunk = 8 << 20

// needle is a value that is looked for, under the name by which a find is told: never the value itself.
type needle struct {
	name  string
	forms [][]byte
}

// newNeedle looks for a value as it is, as UTF-16, in hexadecimal, and in base64 wherever it begins there.
func newNeedle(name, value string) needle {
	n := needle{name: name, forms: [][]byte{
		[]byte(value),
		[]byte(strings.Join(strings.Split(value, ""), "\x00")),
		[]byte(hex.EncodeToString([]byte(value))),
		[]byte(strings.ToUpper(hex.EncodeToString([]byte(value)))),
	}}
	for before := range 3 {
		// What the value alone decides: not the characters that hold bits of what is before or after it.
		encoded := base64.RawStdEncoding.EncodeToString(append(make([]byte, before), value...))
		n.forms = append(n.forms, []byte(encoded[(before*8+5)/6:(before+len(value))*8/6]))
	}
	return n
}

// canary is a value that exists nowhere else.
func canary(name string) (string, needle) {
	value := "canary" + rand.Text()
	return value, newNeedle(name, value)
}

// search reads everything and returns the needles that are in it, by name.
func search(r io.Reader, needles ...needle) ([]string, error) {
	longest := 0
	for _, n := range needles {
		for _, form := range n.forms {
			longest = max(longest, len(form))
		}
	}
	var found []string
	buffer := make([]byte, searchChunk)
	kept := 0 // of the chunk before, for what lies across the border
	for {
		read, err := io.ReadFull(r, buffer[kept:])
		content := buffer[:kept+read]
		for _, n := range needles {
			if !slices.Contains(found, n.name) && slices.ContainsFunc(n.forms, func(form []byte) bool { return bytes.Contains(content, form) }) {
				found = append(found, n.name)
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return found, nil
		}
		if err != nil {
			return found, err
		}
		kept = copy(buffer, content[len(content)-min(longest-1, len(content)):])
	}
}

// searchDisk reads a raw disk, but for its holes, and says how many bytes that were.
func searchDisk(ctx context.Context, path string, needles ...needle) (found []string, size int64, err error) {
	disk, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer disk.Close()
	fd := int(disk.Fd())
	for at := int64(0); ; {
		begin, err := unix.Seek(fd, at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return found, size, nil // a hole up to the end
		}
		if err != nil {
			return found, size, fmt.Errorf("find the data of %s: %w", path, err)
		}
		end, err := unix.Seek(fd, begin, unix.SEEK_HOLE)
		if err != nil {
			return found, size, fmt.Errorf("find the holes of %s: %w", path, err)
		}
		here, err := search(&untilDone{ctx, io.NewSectionReader(disk, begin, end-begin)}, needles...)
		if err != nil {
			return found, size, fmt.Errorf("read %s: %w", path, err)
		}
		for _, name := range here {
			if !slices.Contains(found, name) {
				found = append(found, name)
			}
		}
		size += end - begin
		at = end
	}
}

// untilDone is a reader that fails once ctx has ended.
type untilDone struct {
	ctx context.Context
	r   io.Reader
}

func (u *untilDone) Read(p []byte) (int, error) {
	if err := context.Cause(u.ctx); err != nil {
		return 0, err
	}
	return u.r.Read(p)
}
