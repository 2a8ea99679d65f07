// Package leak finds credentials in files: private keys, keys and tokens of services, logins that programs keep.
//
// What enters are files, each with its path in a system; what leaves is which rule found something and where. The value never
// leaves, not even a part of it. A file of any size takes the same memory, and gzip is looked into. It doesn't judge: what a
// distribution ships on purpose is found as well, and it is the caller who knows. What no rule describes, such as a password
// that looks like any word, is not found.
package leak

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"sync"

	"github.com/cloudflare/ahocorasick"
)

// Sizes in bytes of what is in memory of a file. A rule decides with up to behind bytes before its anchor and ahead bytes
// after it, which is more than the first line of any key. The rest is read at once for the sake of speed.
const (
	window = 512 << 10
	ahead  = 4 << 10
	behind = 64
)

// longestAnchor is where the next constant begins at the latest, when a rule takes it for the credential.
const longestAnchor = 40

// maxLogin bounds the files that are known by their path; logins are far shorter.
const maxLogin = 1 << 20

// Finding is one place that looks like a credential.
type Finding struct {
	// Rule is its name, such as "private key".
	Rule string
	// Offset is where in the file, in bytes; in what a compressed file unpacks to.
	Offset int64
}

// Scanner searches files, one after the other.
type Scanner struct {
	buffer  []byte
	matcher *ahocorasick.Matcher
	anchors []anchor
}

// anchor is text that a rule's credentials always have.
type anchor struct {
	text []byte
	rule *rule
}

// NewScanner prepares a search. A scanner is for one goroutine and takes 2 MB.
func NewScanner() *Scanner {
	s := &Scanner{buffer: make([]byte, window)}
	var texts []string
	all := rules()
	for i := range all {
		for _, text := range all[i].anchors {
			s.anchors = append(s.anchors, anchor{[]byte(text), &all[i]})
			texts = append(texts, text)
		}
	}
	s.matcher = ahocorasick.NewStringMatcher(texts)
	return s
}

// File searches a file, whose path in the system has no slash before it, and calls found for the first place of each rule.
// The error is the reader's, or says that ctx has ended.
func (s *Scanner) File(ctx context.Context, name string, content io.ReadSeeker, found func(Finding)) error {
	name = Inner(name)
	if err := login(name, content, found); err != nil {
		return err
	}
	zipped := isGzip(content)
	if _, err := content.Seek(0, io.SeekStart); err != nil {
		return err
	}
	done := map[*rule]bool{} // those that have found something, and those that don't hold here
	for _, a := range s.anchors {
		done[a.rule] = !a.rule.holdsIn(name)
	}
	search := func(r io.Reader) error {
		return s.stream(ctx, r, done, func(r *rule, offset int64) {
			done[r] = true
			found(Finding{r.name, offset})
		})
	}
	if !zipped {
		return search(content)
	}
	unpacked, err := gzip.NewReader(bufio.NewReaderSize(content, 64<<10))
	if err == nil {
		err = search(whole{unpacked})
	}
	if err == nil || ctx.Err() != nil {
		return err
	}
	// It is no gzip after all, or a part of it: what is in it as it is is searched.
	if _, err := content.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return search(content)
}

// whole tells the end of a file that was cut off from the end of one.
type whole struct{ *gzip.Reader }

var errCut = errors.New("it is cut off")

func (w whole) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = errCut
	}
	return n, err
}

func isGzip(content io.ReadSeeker) bool {
	var magic [3]byte // RFC 1952: the only method there is, is 8
	if _, err := content.Seek(0, io.SeekStart); err != nil {
		return false
	}
	_, err := io.ReadFull(content, magic[:])
	return err == nil && magic == [3]byte{0x1f, 0x8b, 8}
}

// stream searches in windows that overlap, so that what lies across two of them is found, once.
func (s *Scanner) stream(ctx context.Context, r io.Reader, done map[*rule]bool, found func(*rule, int64)) error {
	var base int64    // offset of the buffer
	var length int    // of what is in it
	var undecided int // where anchors begin that no window has decided on
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := io.ReadFull(r, s.buffer[length:])
		length += n
		last := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !last {
			return err
		}
		end := length
		if !last {
			end = length - ahead
		}
		s.window(s.buffer[:length], undecided, end, done, func(r *rule, at int) { found(r, base+int64(at)) })
		if last {
			return nil
		}
		keep := end - behind
		length = copy(s.buffer, s.buffer[keep:length])
		base, undecided = base+int64(keep), behind
	}
}

// window decides on the anchors that begin in buffer[from:end].
func (s *Scanner) window(buffer []byte, from, end int, done map[*rule]bool, found func(*rule, int)) {
	for _, hit := range s.matcher.Match(buffer[from:]) {
		a := s.anchors[hit]
		for at := from; at < end && !done[a.rule]; at++ {
			next := bytes.Index(buffer[at:], a.text)
			if next < 0 || at+next >= end {
				break
			}
			at += next
			if a.rule.holds(buffer, at) && !s.constants(buffer, at+len(a.text)) {
				found(a.rule, at)
			}
		}
	}
}

// constants tells whether another anchor follows close behind one: then a program's constants lie side by side, as in
// flowagent's own file. The random part of a credential never has one.
func (s *Scanner) constants(buffer []byte, behind int) bool {
	next := buffer[behind:min(len(buffer), behind+longestAnchor)]
	return slices.ContainsFunc(s.anchors, func(a anchor) bool { return a.rule.paths == nil && bytes.Contains(next, a.text) })
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

func (r *rule) holdsIn(name string) bool {
	return (r.paths == nil || r.paths.MatchString(name)) && (r.notIn == nil || !r.notIn.MatchString(name))
}

// example is how AWS ends the keys of its documentation.
var example = []byte("EXAMPLE")

func (r *rule) holds(buffer []byte, at int) bool {
	text := buffer[max(0, at-r.before):min(len(buffer), at+ahead)]
	found := r.pattern.FindSubmatch(text)
	return found != nil && !bytes.Contains(found[0], example) && (r.placeholder == nil || !r.placeholder.Match(found[1]))
}

// login looks at what is known by its path: files in which programs keep a login.
func login(name string, content io.ReadSeeker, found func(Finding)) error {
	known := logins()
	at := slices.IndexFunc(known, func(l loginFile) bool { return l.path.MatchString(name) })
	if at < 0 {
		return nil
	}
	if _, err := content.Seek(0, io.SeekStart); err != nil {
		return err
	}
	text, err := io.ReadAll(io.LimitReader(content, maxLogin+1))
	if err != nil {
		return err
	}
	if len(text) > maxLogin {
		return fmt.Errorf("%s is longer than any such file", path.Base(name))
	}
	if place := known[at].content.FindIndex(text); place != nil {
		found(Finding{known[at].name, int64(place[0])})
	}
	return nil
}

// layer is where the engine and containerd keep the unpacked layers of images and containers.
var layer = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^var/lib/(?:docker/(?:overlay2|fuse-overlayfs|vfs/dir)/[^/]+(?:/diff)?|containerd/[^/]+/snapshots/\d+/fs|docker/containerd/daemon/[^/]+/snapshots/\d+/fs)/`)
})

// Inner is a file's path in the image whose layer it belongs to; the path itself for a file of the system.
func Inner(name string) string { return layer().ReplaceAllString(name, "") }
