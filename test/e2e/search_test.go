package e2e

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"
)

// canaries are values that exist nowhere else, so that whoever finds one has found a leak.
type canaries struct {
	forms []form
}

// form is one way to write a canary.
type form struct {
	canary, name string
	text         []byte
}

// find is a canary in a place where it doesn't belong.
type find struct {
	kind, place  string
	canary, form string
}

func (f find) String() string {
	return fmt.Sprintf("%s (%s) is in the %s: %s", f.canary, f.form, f.kind, f.place)
}

// plain is a canary of letters, which YAML and a variable's file take without quotes.
func (c *canaries) plain() string {
	value := "canary" + rand.Text()
	c.add("the canary "+value, []byte(value))
	return value
}

// text is a canary that looks different in every form.
func (c *canaries) text() string {
	value := `canary/"` + rand.Text() + `+ñ%&=`
	c.add("the canary "+value, []byte(value))
	return value
}

// binary is a canary that is no text.
func (c *canaries) binary() []byte {
	value := make([]byte, 48)
	_, _ = rand.Read(value) // never fails
	value[10], value[11] = 0, 0xff
	c.add(fmt.Sprintf("the canary %x", value), value)
	return value
}

func (c *canaries) add(name string, value []byte) {
	for kind, text := range formsOf(value) {
		c.forms = append(c.forms, form{name, kind, []byte(text)})
	}
}

// formsOf are the ways in which programs write a value, by name.
func formsOf(value []byte) map[string]string {
	quoted, _ := json.Marshal(string(value)) // a string always encodes
	forms := map[string]string{
		"as it is":            string(value),
		"hex":                 hex.EncodeToString(value),
		"HEX":                 strings.ToUpper(hex.EncodeToString(value)),
		"escaped for a query": url.QueryEscape(string(value)),
		"escaped for a path":  url.PathEscape(string(value)),
		"escaped for JSON":    strings.Trim(string(quoted), `"`),
		"quoted":              strings.Trim(strconv.Quote(string(value)), `"`),
	}
	// In the base64 of something longer (user:password), a value looks different by where it starts. Its first and last
	// letters hold bits of its neighbours.
	for name, encoding := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64 for URLs": base64.RawURLEncoding} {
		for shift := range 3 {
			padded := append(make([]byte, shift), value...)
			encoded := encoding.EncodeToString(padded)
			if shift > 0 {
				name := fmt.Sprintf("%s, %d byte in", name, shift)
				forms[name] = encoded[shift+1 : len(encoded)-1]
				continue
			}
			forms[name] = encoded[:len(encoded)-1]
		}
	}
	return forms
}

// The kinds of places that are searched.
const (
	inspected       = "output of docker inspect"
	environments    = "environment of a process"
	arguments       = "arguments of a process"
	engineFiles     = "engine's own files"
	containerLogs   = "log of a container"
	containerFiles  = "files of a container"
	containerLayers = "writable layer of a container"
	imageLayers     = "layers of an image"
	agentOutput     = "output of an agent"
	answers         = "answers of an agent"
	runFiles        = "run directory outside the store"
	stateFiles      = "state directory"
	temporaryFiles  = "temporary files"
	dockerFiles     = "docker command line's files"
)

// checkCaged fails for every canary outside the store. See [canaries.search] for deep.
func (c *canaries) checkCaged(n *node, when string, deep bool) {
	n.t.Helper()
	for _, f := range c.search(n, deep) {
		n.t.Errorf("%s: %s", when, f)
	}
}

// search looks for the canaries in every place that isn't the store, the operator's own files or a process's memory. A
// deep search also reads whole images and containers, below their writable layers: as much as all the rest, and nothing
// that changes while they run.
func (c *canaries) search(n *node, deep bool) []find {
	n.t.Helper()
	s := &search{canaries: c, n: n}
	for name, container := range n.inspect() {
		s.in(inspected, name, container.Raw)
		s.in(containerLogs, name, []byte(n.logs(container.Container.Config.Labels["com.docker.compose.service"])))
		s.engine(container)
		if deep {
			export, err := n.engine.ContainerExport(n.t.Context(), container.Container.ID, client.ContainerExportOptions{})
			s.in(containerFiles, name, s.all(export, err))
		}
	}
	if deep {
		saved, err := n.engine.ImageSave(n.t.Context(), []string{n.app})
		s.in(imageLayers, n.app, s.all(saved, err))
	}
	for _, p := range processes(n.t) {
		s.in(environments, p.cmdline, []byte(p.environ))
		s.in(arguments, p.cmdline, []byte(p.cmdline))
	}
	for _, a := range n.agents {
		s.in(agentOutput, "of process "+strconv.Itoa(a.pid), []byte(a.journal.String()))
	}
	s.answers()
	s.tree(runFiles, n.run())
	s.tree(stateFiles, n.state())
	s.tree(temporaryFiles, n.env["TMPDIR"])
	s.tree(dockerFiles, n.env["DOCKER_CONFIG"])
	s.tree(dockerFiles, n.env["HOME"])
	if u, err := user.Current(); err == nil {
		s.tree(dockerFiles, filepath.Join(u.HomeDir, ".docker"))
	}
	return s.found
}

type search struct {
	*canaries
	n     *node
	found []find
}

func (s *search) in(kind, place string, content []byte) {
	for _, f := range s.forms {
		if bytes.Contains(content, f.text) {
			s.found = append(s.found, find{kind, place, f.canary, f.name})
		}
	}
}

// engine looks into what the engine keeps about a container, and into what the container changed.
func (s *search) engine(c client.ContainerInspectResult) {
	s.n.t.Helper()
	info, err := s.n.engine.Info(s.n.t.Context(), client.InfoOptions{})
	if err != nil {
		s.n.t.Fatal(err)
	}
	kept := filepath.Join(info.Info.DockerRootDir, "containers", c.Container.ID)
	if _, err := os.Stat(kept); err != nil {
		s.n.t.Fatalf("the engine's files: %v", err)
	}
	s.tree(engineFiles, kept)
	if c.Container.GraphDriver == nil || c.Container.GraphDriver.Data["UpperDir"] == "" {
		s.n.t.Fatal("the engine doesn't say where the writable layer is: it needs the storage driver overlay2")
	}
	s.tree(containerLayers, c.Container.GraphDriver.Data["UpperDir"])
}

// answers asks the agent all that can be asked, where one is there.
func (s *search) answers() {
	s.n.t.Helper()
	for _, command := range [][]string{{"status"}, {"status", "--output", "json"}, {"secrets", "list"}, {"secrets", "list", "--output", "json"}, {"config", "show"}} {
		out, _ := s.n.command(command...).CombinedOutput() // there may be no agent, or one that isn't ready
		s.in(answers, strings.Join(command, " "), out)
	}
	if _, body, err := s.n.tryHealth(); err == nil {
		s.in(answers, "/health", []byte(body))
	}
}

func (s *search) all(stream io.ReadCloser, err error) []byte {
	s.n.t.Helper()
	if err != nil {
		s.n.t.Fatal(err)
	}
	defer stream.Close()
	content, err := io.ReadAll(stream)
	if err != nil {
		s.n.t.Fatal(err)
	}
	return content
}

// tree looks into every file below dir, and at its name, and into no other filesystem: the store is one.
func (s *search) tree(kind, dir string) {
	s.n.t.Helper()
	var root unix.Stat_t
	if err := unix.Stat(dir, &root); errors.Is(err, fs.ErrNotExist) {
		return
	} else if err != nil {
		s.n.t.Fatal(err)
	}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone in between
		}
		if err != nil {
			return err
		}
		s.in(kind, path, []byte(path))
		var here unix.Stat_t
		if err := unix.Lstat(path, &here); err != nil {
			return nil
		}
		switch {
		case entry.IsDir() && here.Dev != root.Dev:
			return fs.SkipDir
		case entry.Type().IsRegular():
			content, err := os.ReadFile(path)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			s.in(kind, path, content)
		case entry.Type()&fs.ModeSymlink != 0:
			if target, err := os.Readlink(path); err == nil {
				s.in(kind, path, []byte(target))
			}
		}
		return nil
	})
	if err != nil {
		s.n.t.Fatal(err)
	}
}

func TestAFormOfAValueIsFoundInWhatHoldsIt(t *testing.T) {
	value := []byte(`pass"wörd+/&=`)
	forms := formsOf(value)
	for text, name := range map[string]string{
		base64.StdEncoding.EncodeToString([]byte(`{"u":"x","p":"` + string(value) + `"}`)):  "base64, 2 byte in",
		base64.StdEncoding.EncodeToString([]byte(`{"u":"xx","p":"` + string(value) + `"}`)): "base64",
		base64.URLEncoding.EncodeToString([]byte("AWS:" + string(value) + ":AWS")):          "base64 for URLs, 1 byte in",
		"https://u:" + url.QueryEscape(string(value)) + "@host":                             "escaped for a query",
	} {
		if !strings.Contains(text, forms[name]) {
			t.Errorf("%q doesn't have %s, which is %q; forms are %q", text, name, forms[name], slices.Sorted(maps.Keys(forms)))
		}
	}
}
