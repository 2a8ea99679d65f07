package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
)

// maxLayerSize bounds one layer, in bytes. A configuration with a thousand secrets takes a fifth of it; EC2 user
// data, the other way a layer arrives, ends at 16 KiB.
const maxLayerSize = 1 << 20

// dropInDir holds the drop-ins of the main file beside it.
const dropInDir = "config.d"

// Layer is one document of a configuration. Of two layers that set a field, the later one wins.
type Layer struct {
	// Name is the absolute path of a file, or a word such as user-data for what is no file; relative paths in such a
	// layer are refused, since there is no directory that they could start from.
	Name string
	Data []byte
}

// dir is where the layer's relative paths start; empty for a layer that is no file.
func (l Layer) dir() string {
	if !filepath.IsAbs(l.Name) {
		return ""
	}
	return filepath.Dir(l.Name)
}

// ReadLayers reads the main file and then every *.yaml file in config.d beside it, in the order of their names.
// Hidden files are left alone, so that an editor's swap file is no configuration. The error names every file that
// can't be read; it is fs.ErrNotExist when the main file isn't there.
func ReadLayers(path string) ([]Layer, error) {
	main, err := ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: write one with 'flowagent config init --config %s'", err, path)
	}
	var layers []Layer
	var problems []error
	add := func(l Layer, err error) {
		if err != nil {
			problems = append(problems, err)
			return
		}
		layers = append(layers, l)
	}
	add(main, err)

	dir := filepath.Join(filepath.Dir(path), dropInDir)
	entries, err := os.ReadDir(dir) // sorted by name
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		problems = append(problems, fmt.Errorf("read drop-ins: %w", err))
	}
	for _, entry := range entries {
		name := entry.Name()
		switch {
		case strings.HasPrefix(name, "."):
		case strings.HasSuffix(name, ".yaml"):
			add(ReadFile(filepath.Join(dir, name)))
		case strings.HasSuffix(name, ".yml"), strings.HasSuffix(name, ".json"):
			// Anything else (a README, a backup) is plainly no drop-in; these are meant as one and would be missed.
			problems = append(problems, fmt.Errorf("%s is not read: rename it to end in .yaml", filepath.Join(dir, name)))
		}
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return layers, nil
}

// ReadFile reads one file as a layer. It takes regular files of at most 1 MiB, so that neither a pipe nor a device
// can hold up a boot.
func ReadFile(path string) (Layer, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return Layer{}, fmt.Errorf("read configuration: %w", err)
	}
	// O_NONBLOCK: opening a named pipe that nobody writes to would wait for ever.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return Layer{}, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Layer{}, fmt.Errorf("read configuration: %w", err)
	}
	if !info.Mode().IsRegular() {
		return Layer{}, fmt.Errorf("read configuration: %s is not a regular file", path)
	}
	// One byte more than allowed tells a file that is too large from one that just fits; Parse refuses it.
	data, err := io.ReadAll(io.LimitReader(f, maxLayerSize+1))
	if err != nil {
		return Layer{}, fmt.Errorf("read configuration: %w", err)
	}
	return Layer{Name: path, Data: data}, nil
}

var (
	// preamble is what may stand before a document's first field.
	preamble = regexp.MustCompile(`^(?:\s+|#[^\n]*\n|---[ \t\r\n])*`)
	// blockHeader is flowagent's apiVersion at the top level, which in block style is the beginning of a line;
	// flowHeader is the same anywhere in a document in flow style, JSON for one.
	blockHeader = regexp.MustCompile(`(?m)^["']?apiVersion["']?[ \t]*:[ \t]*["']?flowagent/`)
	flowHeader  = regexp.MustCompile(`["']?apiVersion["']?\s*:\s*["']?flowagent/`)
	// otherUserData is what else EC2 user data may be, by its first characters. Each may carry a flowagent document
	// inside, for something else to handle.
	otherUserData = regexp.MustCompile(`(?i)^\s*(#!|#cloud-|#include|#part-handler|## template:|content-type:|mime-version:|<powershell>|<script>)`)
)

// IsDocument tells whether data is meant as a flowagent document, valid or not. EC2 user data may be something else:
// a script, a cloud-config, a MIME archive.
func IsDocument(data []byte) bool {
	if len(data) > maxLayerSize {
		data = data[:maxLayerSize]
	}
	data = bytes.TrimPrefix(data, utf8BOM)
	if otherUserData.Match(data) {
		return false
	}
	body := data[len(preamble.Find(data)):]
	if bytes.HasPrefix(body, []byte("{")) {
		return flowHeader.Match(body)
	}
	return blockHeader.Match(body)
}
