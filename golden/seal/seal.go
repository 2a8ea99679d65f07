// Package seal takes from a system what belongs to one machine, so that its disk can become many.
//
// What enters is the root directory of a system; what leaves is that system without identity, history and caches, and a
// list of what was done and why. It works through [os.Root]: no symbolic link leads it out of the root directory, none in a
// person's home is followed at all, and what is mounted below the root is left alone. It never installs, enables or
// configures anything, and never removes an image or a volume of the Docker Engine.
//
// A root directory that is the running system's own is sealed together with what runs: swap is turned off, `cloud-init
// clean` is called, and containers are removed through the engine. Programs are started for that root alone.
package seal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ErrServing says that an agent is at work in the system: it is a node, not an image that is being built.
var ErrServing = errors.New("flowagent is running in this system, which makes it a node")

// ErrUnknownKind says that [Options.Keep] names something that isn't a kind.
var ErrUnknownKind = errors.New("unknown kind")

// Options say what to seal.
type Options struct {
	// Root is the system's root directory.
	Root string
	// DryRun looks for what there is to do and changes nothing.
	DryRun bool
	// FirstBoot has systemd take the next boot for the system's first (machine-id(5)), on which it enables every unit that
	// its presets name. Without it, which units are enabled stays as it was built.
	FirstBoot bool
	// Keep has the names of kinds that are left alone; see [Kinds].
	Keep []string
}

// Change is one thing that was done, or in a dry run, that there is to do.
type Change struct {
	Kind string `json:"kind"`
	// Path begins with a slash and is meant from the root directory.
	Path string `json:"path"`
	// Did says what happened to it: removed, emptied, …
	Did string `json:"did"`
	// Files and Bytes count what was removed or emptied.
	Files int    `json:"files,omitempty"`
	Bytes int64  `json:"bytes,omitempty"`
	Why   string `json:"why"`
}

// Report is what sealing did.
type Report struct {
	Root    string   `json:"root"`
	DryRun  bool     `json:"dryRun"`
	Changes []Change `json:"changes"`
	// Kept are the kinds that were left alone because they were asked for.
	Kept []string `json:"kept,omitempty"`
	// Problems are what could not be done; with one, the system is not sealed.
	Problems []string `json:"problems,omitempty"`
}

// Kinds are the names of all that is sealed, in the order in which it is.
func Kinds() []string {
	var names []string
	for _, k := range kinds {
		names = append(names, k.name)
	}
	return names
}

// Lasting are the kinds that stay away once they are sealed. The others, such as logs, come back by themselves while the
// system runs, so that finding them again says nothing.
func Lasting() []string {
	var names []string
	for _, k := range kinds {
		if !k.returns {
			names = append(names, k.name)
		}
	}
	return names
}

// IsRunning tells whether root is the root directory of the running system, whatever its name.
func IsRunning(root string) (bool, error) {
	given, err := os.Stat(root)
	if err != nil {
		return false, err
	}
	own, err := os.Stat("/")
	if err != nil {
		return false, err
	}
	return os.SameFile(given, own), nil
}

// Seal removes the identity of the system below opts.Root. Sealing what is sealed does nothing. A problem with one thing
// doesn't keep the others from being sealed: the report has all that was done, and the error joins what was not.
//
// Nothing is done, and the error wraps [ErrServing], where an agent answers on the system's control socket.
func Seal(ctx context.Context, opts Options) (Report, error) {
	report := Report{Root: opts.Root, DryRun: opts.DryRun, Changes: []Change{}}
	for _, name := range opts.Keep {
		if !slices.Contains(Kinds(), name) {
			return report, fmt.Errorf("%w %q: use %s", ErrUnknownKind, name, strings.Join(Kinds(), ", "))
		}
	}
	s, err := open(ctx, opts)
	if err != nil {
		return report, fmt.Errorf("seal %s: %w", opts.Root, err)
	}
	defer s.root.Close()
	if !opts.DryRun && s.answers("run/flowagent/agent.sock") {
		return report, fmt.Errorf("%w: stop it first with 'systemctl stop flowagent', if this is the machine to seal", ErrServing)
	}
	for _, k := range kinds {
		if slices.Contains(opts.Keep, k.name) {
			report.Kept = append(report.Kept, k.name)
			continue
		}
		if err := ctx.Err(); err != nil {
			s.problems = append(s.problems, context.Cause(ctx))
			break
		}
		s.seal(k)
	}
	report.Changes = append(report.Changes, s.changes...)
	for _, problem := range s.problems {
		report.Problems = append(report.Problems, problem.Error())
	}
	return report, errors.Join(s.problems...)
}

// sealer seals one system.
type sealer struct {
	ctx     context.Context
	root    *os.Root
	path    string // of the root directory: absolute, without symbolic links
	running bool   // the root directory is the running system's
	dry     bool
	first   bool            // the next boot is the first one
	mounts  map[string]bool // mount points below the root, as paths from it

	kind     kind // the one at hand
	changes  []Change
	problems []error
}

func open(ctx context.Context, opts Options) (*sealer, error) {
	s := &sealer{ctx: ctx, dry: opts.DryRun, first: opts.FirstBoot}
	var err error
	if s.path, err = filepath.Abs(opts.Root); err != nil {
		return nil, err
	}
	if s.path, err = filepath.EvalSymlinks(s.path); err != nil {
		return nil, err
	}
	if s.running, err = IsRunning(s.path); err != nil {
		return nil, err
	}
	if s.root, err = os.OpenRoot(s.path); err != nil {
		return nil, err
	}
	// The mistake of a mistyped directory is found before anything is changed.
	if _, err := s.root.Stat("etc"); err != nil {
		_ = s.root.Close()
		return nil, fmt.Errorf("it is not the root directory of a system: %w; give the directory where its disk is mounted", err)
	}
	if s.mounts, err = mountsBelow(s.path); err != nil {
		_ = s.root.Close()
		return nil, fmt.Errorf("find out what is mounted there: %w", err)
	}
	return s, nil
}

func (s *sealer) seal(k kind) {
	s.kind = k
	homes, err := Homes(s.root)
	if err != nil {
		s.problem("etc/passwd", err)
	}
	if k.before != nil {
		k.before(s)
	}
	for _, r := range k.rules {
		patterns := []string{r.path}
		if rest, ok := strings.CutPrefix(r.path, "~/"); ok {
			patterns = nil
			for _, home := range homes {
				patterns = append(patterns, filepath.Join(home, rest))
			}
		}
		for _, pattern := range patterns {
			s.expand(pattern, strings.HasPrefix(r.path, "~/"), func(found place) { r.do(s, found) })
		}
	}
	if k.after != nil {
		k.after(s)
	}
}

// did notes a change.
func (s *sealer) did(path, did string, count tally) {
	s.changes = append(s.changes, Change{
		Kind: s.kind.name, Path: "/" + path, Did: did, Files: count.files, Bytes: count.bytes, Why: s.kind.why,
	})
}

// problem notes that something could not be done.
func (s *sealer) problem(path string, err error) {
	var known *fs.PathError
	if errors.As(err, &known) { // its path is one of a handle's, and says nothing
		err = fmt.Errorf("%s: %w", known.Op, known.Err)
	}
	s.problems = append(s.problems, fmt.Errorf("%s: /%s: %w", s.kind.name, path, err))
}

// answers tells whether a process listens on a Unix socket of the system.
func (s *sealer) answers(path string) bool {
	conn, err := (&net.Dialer{}).DialContext(s.ctx, "unix", filepath.Join(s.path, path))
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// Homes are the home directories of a system, from its accounts and below /home, as paths from its root directory. Those
// that aren't there, and those that programs share with the system (/, /usr, /bin, …), are left out.
func Homes(root *os.Root) ([]string, error) {
	candidates := []string{"root"}
	accounts, err := root.ReadFile("etc/passwd")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for line := range strings.Lines(string(accounts)) {
		if fields := strings.Split(strings.TrimSpace(line), ":"); len(fields) == 7 {
			candidates = append(candidates, strings.TrimPrefix(filepath.Clean(fields[5]), "/"))
		}
	}
	if dir, err := root.Open("home"); err == nil {
		entries, err := dir.ReadDir(-1)
		_ = dir.Close()
		if err != nil {
			return nil, err
		}
		for _, entry := range entries {
			candidates = append(candidates, "home/"+entry.Name())
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	slices.SortFunc(candidates, cmp.Compare[string])
	var homes []string
	for _, home := range slices.Compact(candidates) {
		first, _, nested := strings.Cut(home, "/")
		if !filepath.IsLocal(home) || home == "nonexistent" || slices.Contains([]string{"bin", "sbin", "dev", "proc", "run", "sys", "usr"}, first) || (!nested && home != "root") {
			continue
		}
		if info, err := root.Stat(home); err == nil && info.IsDir() {
			homes = append(homes, home)
		}
	}
	return homes, nil
}
