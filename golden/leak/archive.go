package leak

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"path"
	"regexp"
	"strings"
	"sync"
)

// maxDepth is how many tars inside one another are looked into: an archive of images, a layer of one, an archive in that
// layer. Each may be compressed. What is deeper is searched as it is.
const maxDepth = 3

// Sizes in bytes of the buffers of each level. Tar has blocks of 512.
const (
	tarBlock    = 512
	levelBuffer = 64 << 10
	levelWindow = 32 << 10
)

// place is a file: one of the system, or an entry of an archive.
type place struct {
	// name is its path in the system, or in the image when it is in a layer of one. An archive on the way is as a directory.
	name string
	// own is its path in the innermost archive, which may have been made of a whole system; else it is name.
	own    string
	inside string // as Finding has it
	image  string // as Finding has it
}

// entry is the place of an archive's entry. The archive may be the layer of an image.
func (p place) entry(name string, layer bool) place {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	e := place{name: path.Join(p.name, name), own: name, inside: path.Join(p.inside, name), image: p.image}
	if layer {
		e.name, e.image = name, name
	}
	return e
}

// layerArchive is how the archives of layers are called: by the OCI's image layout, which the engine's archives and the
// stores of containerd and of registries have as well, and in older archives of images.
var layerArchive = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?:^|/)(?:blobs/sha256/(?:[0-9a-f]{2}/)?[0-9a-f]{64}(?:/data)?|[0-9a-f]{64}(?:/layer)?\.tar)$`)
})

// dig is the search of one file, down into what is packed in it.
type dig struct {
	*Scanner
	ctx   context.Context
	found func(Finding)
	err   error // the first thing that could not be judged
}

// level is what the search of a file needs at its depth, to look into it while it looks into another one.
type level struct {
	content  *bufio.Reader
	packed   *bufio.Reader // what gzip reads
	unpacked *bufio.Reader
	gzip     gzip.Reader
	asItIs   *stream // of a compressed file's own bytes
	between  *stream // of what a tar has around its entries
}

func (d *dig) level(depth int) *level {
	if d.levels[depth] == nil {
		d.levels[depth] = &level{content: bufio.NewReaderSize(nil, levelBuffer)}
	}
	return d.levels[depth]
}

// at makes findings in a place.
func (d *dig) at(p place, found func(Finding)) func(*rule, int64) {
	return func(r *rule, offset int64) {
		found(Finding{Rule: r.name, Inside: p.inside, Image: p.image, Offset: offset})
	}
}

// file searches a file, and reads it to its end.
func (d *dig) file(p place, r io.Reader, depth int) {
	l := d.level(depth)
	l.content.Reset(d.login(p, r))
	magic, _ := l.content.Peek(3) // an error comes again
	// RFC 1952: the only method there is, is 8.
	if !bytes.Equal(magic, []byte{0x1f, 0x8b, 8}) {
		d.unpacked(p, l.content, depth)
		return
	}
	// Whether it can be unpacked is known at its end, and a stream can't be read again. So its own bytes are searched in
	// passing, and count if it turns out to be no gzip after all, or a part of it.
	if l.asItIs == nil {
		l.packed, l.unpacked = bufio.NewReaderSize(nil, levelBuffer), bufio.NewReaderSize(nil, levelBuffer)
		l.asItIs = d.newStream(levelWindow)
	}
	var raw []Finding
	l.asItIs.start(p, d.at(p, func(f Finding) { raw = append(raw, f) }))
	l.packed.Reset(io.TeeReader(l.content, l.asItIs))
	err := l.gzip.Reset(l.packed)
	if err == nil {
		unpacked := &remembering{ctx: d.ctx, r: &l.gzip}
		l.unpacked.Reset(unpacked)
		d.unpacked(p, l.unpacked, depth)
		err = unpacked.err
	}
	if err != io.EOF {
		l.asItIs.readFrom(l.content)
		for _, f := range raw {
			d.found(f)
		}
	}
}

// unpacked searches what isn't compressed, or isn't any more.
func (d *dig) unpacked(p place, content *bufio.Reader, depth int) {
	// POSIX.1 pax, ustar: the magic is at 257. GNU tar's begins with the same letters.
	if start, _ := content.Peek(tarBlock); depth < maxDepth && len(start) == tarBlock && string(start[257:262]) == "ustar" {
		d.tar(p, content, depth)
		return
	}
	d.plain.start(p, d.at(p, d.found))
	d.plain.readFrom(content)
}

// tar searches an archive's entries, each as a file, and everything else in it as it is: headers, what follows the end, and
// from where it is damaged on, all that is left. So each byte is searched, and once.
func (d *dig) tar(p place, content *bufio.Reader, depth int) {
	l := d.level(depth)
	if l.between == nil {
		l.between = d.newStream(levelWindow)
	}
	l.between.start(p, d.at(p, d.found))
	b := &between{r: content, stream: l.between}
	archive := tar.NewReader(b)
	layer := layerArchive().MatchString(p.name)
	for d.ctx.Err() == nil {
		header, err := archive.Next()
		if err != nil {
			break
		}
		if isFile(header) {
			b.leave()
			d.file(p.entry(header.Name, layer), archive, depth+1)
			b.enter()
		}
	}
	l.between.readFrom(content)
}

// isFile tells whether an entry's data are a file's content, byte by byte. Those of a sparse one aren't: its holes, of any
// length, would be read as zeros.
func isFile(header *tar.Header) bool {
	if header.Typeflag != tar.TypeReg && header.Typeflag != tar.TypeCont {
		return false
	}
	for key := range header.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return false
		}
	}
	return true
}

// between reads an archive, and searches what is read but for the entries.
type between struct {
	r       io.Reader
	stream  *stream
	offset  int64
	inEntry bool
}

func (b *between) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.offset += int64(n)
	if !b.inEntry {
		_, _ = b.stream.Write(p[:n]) // never fails
	}
	return n, err
}

func (b *between) leave() {
	b.stream.end()
	b.inEntry = true
}

func (b *between) enter() {
	b.stream.jump(b.offset)
	b.inEntry = false
}

// remembering reads until ctx ends, and remembers how reading ended: io.EOF, or what went wrong.
type remembering struct {
	ctx context.Context
	r   io.Reader
	err error
}

func (r *remembering) Read(p []byte) (int, error) {
	if r.err == nil {
		r.err = context.Cause(r.ctx)
	}
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.r.Read(p)
	r.err = err
	return n, err
}
