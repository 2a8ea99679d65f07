package image

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
)

const (
	// The largest manifest, index or configuration that is read. Registries must accept manifests of 4 MiB (OCI
	// Distribution Specification, "Pushing Manifests") and hardly accept larger ones.
	longestDocument = 4 << 20
	// All documents of one archive together, so that a hostile one can't fill the memory. A hundred images have about
	// one megabyte.
	allDocuments = 64 << 20
)

// archive is one image archive and what it holds.
type archive struct {
	path   string
	images []archived
	// The manifest.json that engines need and a pure OCI layout lacks; nil when the archive has its own.
	added []byte
}

// archived is one image in an archive.
type archived struct {
	names   []string // normalised, with tags
	digests []string // of its manifest and of the indexes above it, sha256:…; checked against their content
	config  string   // digest of its configuration, sha256:…, which is its id in the engine's classic store
	content imageConfig
}

// ids are what the engine may call the image: the configuration's digest, or the manifest's in the containerd store.
func (a archived) ids() []string { return append([]string{a.config}, a.digests...) }

// label names the image to people.
func (a archived) label() string {
	if len(a.names) > 0 {
		return strings.Join(a.names, ", ")
	}
	return a.config
}

// The documents of both formats, as far as they are needed. Sources: OCI Image Layout and Image Index specifications
// 1.1, and the engine's image/tarexport for manifest.json.
type (
	descriptor struct {
		MediaType   string            `json:"mediaType"`
		Digest      string            `json:"digest"`
		Annotations map[string]string `json:"annotations"`
		Platform    *platform         `json:"platform"`
	}
	platform struct {
		OS           string `json:"os"`
		Architecture string `json:"architecture"`
	}
	// manifest is an index when it has Manifests, else an image's.
	manifest struct {
		Manifests []descriptor `json:"manifests"`
		Config    descriptor   `json:"config"`
		Layers    []descriptor `json:"layers"`
	}
	// imageConfig is an image's configuration.
	imageConfig struct {
		platform
		Created time.Time `json:"created"`
		RootFS  struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	// saved is one entry of manifest.json.
	saved struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
)

// documents are an archive's small JSON files by path, and the names of all its files.
type documents struct {
	content map[string][]byte
	files   map[string]bool
}

// readArchive finds out what an archive holds for a platform. It reads the whole file, skipping over layers where the
// file isn't compressed, so a truncated one is noticed.
func readArchive(ctx context.Context, file string, want platform) (archive, error) {
	docs := documents{content: map[string][]byte{}, files: map[string]bool{}}
	total := 0
	err := walkTar(ctx, file, nil, func(name string, header *tar.Header, content io.Reader) error {
		docs.files[name] = true
		if header.Typeflag != tar.TypeReg || header.Size > longestDocument {
			return nil
		}
		head := make([]byte, 1)
		// Layers are gzip, zstd or tar, none of which begins like JSON; a tar whose first member does is only kept in vain.
		if n, err := io.ReadFull(content, head); n == 0 || (head[0] != '{' && head[0] != '[') {
			if err == io.EOF {
				err = nil
			}
			return err
		}
		rest, err := io.ReadAll(content)
		if err != nil {
			return err
		}
		if total += len(rest); total > allDocuments {
			return fmt.Errorf("its documents are larger than %d MiB together", allDocuments>>20)
		}
		docs.content[name] = append(head, rest...)
		return nil
	})
	if err != nil {
		return archive{}, err
	}
	a := archive{path: file}
	index, hasIndex := docs.content["index.json"]
	list, hasList := docs.content["manifest.json"]
	switch {
	case hasList:
		// What docker load reads. An index beside it, as engines since 25 write, tells the digests.
		if a.images, err = docs.savedImages(list); err == nil && hasIndex {
			docs.addDigests(a.images, index, want)
		}
	case hasIndex:
		a.images, a.added, err = docs.layoutImages(index, want)
	default:
		return archive{}, errors.New("neither manifest.json of `docker save` nor index.json of an OCI layout is in it")
	}
	return a, err
}

// savedImages reads manifest.json.
func (d documents) savedImages(list []byte) ([]archived, error) {
	var entries []saved
	if err := json.Unmarshal(list, &entries); err != nil {
		return nil, fmt.Errorf("read its manifest.json: %w", err)
	}
	var images []archived
	for _, entry := range entries {
		content, ok := d.content[path.Clean(entry.Config)]
		if !ok {
			return nil, fmt.Errorf("its manifest.json names the configuration %q, which isn't in it", entry.Config)
		}
		image := archived{config: digestOf(content)}
		if err := json.Unmarshal(content, &image.content); err != nil {
			return nil, fmt.Errorf("read its configuration %s: %w", entry.Config, err)
		}
		for _, tag := range entry.RepoTags {
			named, err := reference.ParseNormalizedNamed(tag)
			if err != nil {
				return nil, fmt.Errorf("its manifest.json names the image %q: %w", tag, err)
			}
			image.names = append(image.names, reference.TagNameOnly(named).String())
		}
		images = append(images, image)
	}
	return images, nil
}

// addDigests adds the manifest digests that an index tells about images that manifest.json already told of. What the
// index says beyond that is no concern of docker load, so its defects aren't either.
func (d documents) addDigests(images []archived, index []byte, want platform) {
	found, _, err := d.layoutImages(index, want)
	if err != nil {
		return
	}
	for i := range images {
		for _, other := range found {
			if other.config == images[i].config {
				images[i].digests = append(images[i].digests, other.digests...)
			}
		}
	}
}

// layoutImages reads index.json and what it leads to, and makes the manifest.json for it.
func (d documents) layoutImages(index []byte, want platform) (images []archived, list []byte, err error) {
	var top manifest
	if err := json.Unmarshal(index, &top); err != nil {
		return nil, nil, fmt.Errorf("read its index.json: %w", err)
	}
	var entries []saved
	for _, entry := range top.Manifests {
		found, layers, err := d.resolve(entry, want, nil)
		if err != nil {
			return nil, nil, err
		}
		if found == nil {
			continue
		}
		found.names = layoutNames(entry.Annotations)
		one := saved{Config: blobPath(found.config), RepoTags: []string{}, Layers: []string{}}
		for _, name := range found.names {
			one.RepoTags = append(one.RepoTags, familiar(name))
		}
		for _, layer := range layers {
			if !d.files[blobPath(layer)] {
				return nil, nil, fmt.Errorf("layer %s isn't in it", layer)
			}
			one.Layers = append(one.Layers, blobPath(layer))
		}
		images, entries = append(images, *found), append(entries, one)
	}
	if len(images) == 0 {
		return nil, nil, fmt.Errorf("no image for %s/%s is in it", want.OS, want.Architecture)
	}
	list, err = json.Marshal(entries)
	return images, list, err
}

// resolve follows a descriptor down to the image for the wanted platform; nil when there is none below it. above are
// the digests of the indexes on the way.
func (d documents) resolve(entry descriptor, want platform, above []string) (*archived, []string, error) {
	if entry.Platform != nil && *entry.Platform != want {
		return nil, nil, nil // another platform, or an attestation (unknown/unknown)
	}
	if slices.Contains(above, entry.Digest) || len(above) > 4 { // an index in an index is unusual, more than that absurd
		return nil, nil, errors.New("its indexes are nested too deep")
	}
	content, err := d.blob(entry.Digest)
	if err != nil {
		return nil, nil, err
	}
	var m manifest
	if err := json.Unmarshal(content, &m); err != nil {
		return nil, nil, fmt.Errorf("read manifest %s: %w", entry.Digest, err)
	}
	digests := append(slices.Clone(above), entry.Digest)
	if m.Manifests != nil {
		for _, below := range m.Manifests {
			found, layers, err := d.resolve(below, want, digests)
			if err != nil || found != nil {
				return found, layers, err
			}
		}
		return nil, nil, nil
	}
	config, err := d.blob(m.Config.Digest)
	if err != nil {
		return nil, nil, err
	}
	image := archived{digests: digests, config: m.Config.Digest}
	if err := json.Unmarshal(config, &image.content); err != nil {
		return nil, nil, fmt.Errorf("read configuration %s: %w", m.Config.Digest, err)
	}
	if made := image.content.platform; made.Architecture != "" && made != want {
		return nil, nil, nil
	}
	var layers []string
	for _, layer := range m.Layers {
		layers = append(layers, layer.Digest)
	}
	return &image, layers, nil
}

// blob returns a document whose content was checked against its digest.
func (d documents) blob(digest string) ([]byte, error) {
	content, ok := d.content[blobPath(digest)]
	if !ok {
		return nil, fmt.Errorf("blob %q isn't in it, or is no document", digest)
	}
	if got := digestOf(content); got != digest {
		return nil, fmt.Errorf("%w: blob %s has %s", ErrCorrupt, digest, got)
	}
	return content, nil
}

// layoutNames are the image's names by its annotations. The standard one may hold a mere tag (OCI Image Layout,
// "index.json"), which names no image.
func layoutNames(annotations map[string]string) []string {
	for _, key := range []string{"io.containerd.image.name", "org.opencontainers.image.ref.name"} {
		value := annotations[key]
		if !strings.ContainsAny(value, "/:") {
			continue
		}
		if named, err := reference.ParseNormalizedNamed(value); err == nil {
			if tagged, ok := reference.TagNameOnly(named).(reference.Tagged); ok {
				return []string{tagged.String()}
			}
		}
	}
	return nil
}

// familiar is the short form of a normalised name, which is what manifest.json holds.
func familiar(name string) string {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	return reference.FamiliarString(named)
}

func blobPath(digest string) string { return path.Join("blobs", strings.Replace(digest, ":", "/", 1)) }

func digestOf(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// write writes what docker load understands. A `docker save` archive goes as it is. To an OCI layout, which engines
// without the containerd store can't load, the manifest.json is added that leads them to its blobs; it comes last, after
// every blob was checked against the digest in its name, so an engine loads nothing of a damaged layout. read is told
// how far into the file it is.
func (a archive) write(ctx context.Context, to io.Writer, read func(n int64)) error {
	if a.added == nil {
		file, err := os.Open(a.path)
		if err != nil {
			return err
		}
		defer file.Close()
		_, err = io.Copy(to, &counting{ctx: ctx, from: file, read: read})
		return err
	}
	out := tar.NewWriter(to)
	err := walkTar(ctx, a.path, read, func(name string, header *tar.Header, content io.Reader) error {
		if header.Typeflag != tar.TypeReg {
			return nil // directories come to be by themselves; a layout has nothing else
		}
		if err := out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: header.Size, Mode: 0o644}); err != nil {
			return err
		}
		sum := sha256.New()
		if _, err := io.Copy(io.MultiWriter(out, sum), content); err != nil {
			return err
		}
		want, isBlob := strings.CutPrefix(name, "blobs/sha256/")
		if got := hex.EncodeToString(sum.Sum(nil)); isBlob && got != want {
			return fmt.Errorf("%w: blob sha256:%s has sha256:%s", ErrCorrupt, want, got)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "manifest.json", Size: int64(len(a.added)), Mode: 0o644}); err != nil {
		return err
	}
	if _, err := out.Write(a.added); err != nil {
		return err
	}
	return out.Close()
}

// walkTar visits the members of a .tar or .tar.gz file, with clean names relative to its root. An uncompressed file is
// skipped through by seeking where visit leaves content unread.
func walkTar(ctx context.Context, name string, read func(n int64), visit func(name string, header *tar.Header, content io.Reader) error) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	var from io.Reader = file
	if read != nil {
		from = &counting{ctx: ctx, from: file, read: read}
	}
	if strings.HasSuffix(name, ".gz") {
		unzipped, err := gzip.NewReader(bufio.NewReaderSize(&counting{ctx: ctx, from: from}, 1<<20)) // few, large reads
		if err != nil {
			return err
		}
		defer unzipped.Close()
		from = unzipped
	}
	members := tar.NewReader(from)
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		header, err := members.Next()
		if err == io.EOF {
			// The checksum of a gzip file comes after the end of the tar in it.
			_, err := io.Copy(io.Discard, from)
			return err
		}
		if err != nil {
			return err
		}
		if err := visit(path.Clean("/" + header.Name)[1:], header, members); err != nil {
			return err
		}
	}
}

// counting reports how much was read, and fails when its context ended.
type counting struct {
	ctx  context.Context
	from io.Reader
	n    int64
	read func(n int64)
}

func (c *counting) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	n, err := c.from.Read(p)
	c.n += int64(n)
	if c.read != nil {
		c.read(c.n)
	}
	return n, err
}
