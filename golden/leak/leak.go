// Package leak finds credentials in files: private keys, keys and tokens of services, logins that programs keep.
//
// What enters are files, each with its path in a system; what leaves is which rule found something and where. The value never
// leaves, not even a part of it. A file of any size takes the same memory. Gzip and tar are looked into, so that an entry of
// an archive, as of an image's layer, is a file with a path of its own. It doesn't judge: what a distribution ships on purpose
// is found as well, and it is the caller who knows. What no rule describes, such as a password that looks like any word, is
// not found, nor what another compression hides.
package leak

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode"

	"github.com/cloudflare/ahocorasick"
)

// maxLogin bounds the files that are known by their path; logins are far shorter.
const maxLogin = 1 << 20

// Finding is one place that looks like a credential.
type Finding struct {
	// Rule is its name, such as "private key".
	Rule string
	// Inside is the path of the entry that it is in, when the file is an archive: through the archives in it, as if they were
	// directories. It is empty for the file itself, and for what lies between the entries of an archive.
	Inside string
	// Image is the path, in an image, of the file that it is in; empty outside of an image's layers.
	Image string
	// Offset is where in that file or entry, in bytes; in what a compressed one unpacks to.
	Offset int64
}

// Scanner searches files, one after the other.
type Scanner struct {
	matcher *ahocorasick.Matcher
	anchors []anchor
	plain   *stream              // for what isn't packed
	levels  [maxDepth + 1]*level // nil until a file is nested that deep
}

// anchor is text that a rule's credentials always have.
type anchor struct {
	text    []byte
	letters bool // and nothing else
	rule    *rule
	set     ruleSet // of that rule alone
}

// ruleSet has a bit for each rule.
type ruleSet uint32

// NewScanner prepares a search. A scanner is for one goroutine and takes 2 MB, and half as much more for archives.
func NewScanner() *Scanner {
	s := &Scanner{}
	var texts []string
	all := rules()
	for i := range all {
		for _, text := range all[i].anchors {
			letters := !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsLetter(r) })
			s.anchors = append(s.anchors, anchor{[]byte(text), letters, &all[i], 1 << i})
			texts = append(texts, text)
		}
	}
	s.matcher = ahocorasick.NewStringMatcher(texts)
	s.plain = s.newStream(window)
	return s
}

// File searches a file, whose path in the system has no slash before it, and calls found for the first place of each rule,
// in each entry of an archive. The error is the reader's, or says that ctx has ended or what could not be judged.
func (s *Scanner) File(ctx context.Context, name string, content io.Reader, found func(Finding)) error {
	p := place{name: inner(name)}
	if p.name != name {
		p.image = p.name
	}
	p.own = p.name
	source := &remembering{ctx: ctx, r: content}
	d := &dig{Scanner: s, ctx: ctx, found: found}
	d.file(p, source, 0)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case !errors.Is(source.err, io.EOF):
		return source.err
	}
	return d.err
}

// rule describes one sort of credential.
type rule struct {
	name    string
	anchors []string
	// pattern decides on the text from before bytes in front of the anchor on.
	pattern *regexp.Regexp
	before  int
	// placeholder is what documentation writes where pattern's first group has the credential; nil for no such words.
	placeholder *regexp.Regexp
	// paths are where the rule holds, but for notIn; nil for everywhere, and for no exception.
	paths, notIn *regexp.Regexp
}

func (r *rule) holdsIn(p place) bool {
	return r.paths == nil && r.notIn == nil || r.holdsAt(p.name) || p.own != p.name && r.holdsAt(p.own)
}

func (r *rule) holdsAt(name string) bool {
	return (r.paths == nil || r.paths.MatchString(name)) && (r.notIn == nil || !r.notIn.MatchString(name))
}

// example is how AWS ends the keys of its documentation.
var example = []byte("EXAMPLE")

func (r *rule) holds(buffer []byte, at int) bool {
	text := buffer[max(0, at-r.before):min(len(buffer), at+ahead)]
	found := r.pattern.FindSubmatch(text)
	return found != nil && !bytes.Contains(found[0], example) && (r.placeholder == nil || !r.placeholder.Match(found[1]))
}

// login looks at what is known by its path: files in which programs keep a login. It returns what is to be read then.
func (d *dig) login(p place, r io.Reader) io.Reader {
	known := logins()
	at := slices.IndexFunc(known, func(l loginFile) bool { return l.isAt(p.name) || p.own != p.name && l.isAt(p.own) })
	if at < 0 {
		return r
	}
	text, _ := io.ReadAll(io.LimitReader(r, maxLogin+1)) // an error comes again
	if len(text) > maxLogin {
		if d.err == nil {
			d.err = fmt.Errorf("%s is longer than any such file", path.Base(p.name))
		}
	} else if where := known[at].content.FindIndex(text); where != nil {
		d.at(p, d.found)(&rule{name: known[at].name}, int64(where[0]))
	}
	return io.MultiReader(bytes.NewReader(text), r)
}

// layer is where the engine and containerd keep the unpacked layers of images and containers.
var layer = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^var/lib/(?:docker/(?:overlay2|fuse-overlayfs|vfs/dir)/[^/]+(?:/diff)?|containerd/[^/]+/snapshots/\d+/fs|docker/containerd/daemon/[^/]+/snapshots/\d+/fs)/`)
})

// inner is a file's path in the image whose layer it belongs to; the path itself for a file of the system.
func inner(name string) string { return layer().ReplaceAllString(name, "") }
