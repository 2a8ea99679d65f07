package leak

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// entry is a file in an archive.
type entry struct{ name, content string }

// tarred is an archive of these files.
func tarred(t testing.TB, entries ...entry) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		add(t, w, tar.Header{Name: e.name, Mode: 0o644}, e.content)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func add(t testing.TB, w *tar.Writer, header tar.Header, content string) {
	t.Helper()
	header.Size = int64(len(content))
	if err := w.WriteHeader(&header); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, content); err != nil {
		t.Fatal(err)
	}
}

func gzipped(t testing.TB, content string) string {
	t.Helper()
	return zipped(t, content, gzip.DefaultCompression)
}

// stored is gzip that has the content as it is.
func stored(t testing.TB, content string) string {
	t.Helper()
	return zipped(t, content, gzip.NoCompression)
}

func zipped(t testing.TB, content string, level int) string {
	t.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// blob is how an archive of images calls a layer.
var blob = "blobs/sha256/" + strings.Repeat("4f", 32)

func TestAnArchivesEntriesAreFiles(t *testing.T) {
	s := NewScanner()
	key := planted(t)["private key"][0]
	layer := tarred(t, entry{"usr/bin/program", strings.Repeat("x", 3*window)}, entry{"./app/key.pem", "1234\n" + key + strings.Repeat("x", window)}, entry{"app/empty", ""})
	for name, c := range map[string]struct {
		path, content, inside, image string
	}{
		"a tar":                     {"srv/backup.tar", layer, "app/key.pem", ""},
		"a compressed one":          {"srv/backup.tgz", gzipped(t, layer), "app/key.pem", ""},
		"an image's layer":          {"srv/wms.tar", tarred(t, entry{"oci-layout", "{}"}, entry{blob, layer}), blob + "/app/key.pem", "app/key.pem"},
		"one not made smaller":      {"srv/backup.tgz", stored(t, layer), "app/key.pem", ""},
		"a compressed layer":        {"srv/wms.tar", tarred(t, entry{blob, gzipped(t, layer)}), blob + "/app/key.pem", "app/key.pem"},
		"a compressed image":        {"srv/wms.tar.gz", gzipped(t, tarred(t, entry{blob, layer})), blob + "/app/key.pem", "app/key.pem"},
		"an older image":            {"srv/wms.tar", tarred(t, entry{blob[13:] + "/layer.tar", layer}), blob[13:] + "/layer.tar/app/key.pem", "app/key.pem"},
		"Podman's image":            {"srv/wms.tar", tarred(t, entry{blob[13:] + ".tar", layer}), blob[13:] + ".tar/app/key.pem", "app/key.pem"},
		"an unpacked image":         {"srv/wms/" + blob, gzipped(t, layer), "app/key.pem", "app/key.pem"},
		"a registry's store":        {"var/lib/registry/docker/registry/v2/blobs/sha256/4f/" + blob[13:] + "/data", gzipped(t, layer), "app/key.pem", "app/key.pem"},
		"containerd's store":        {"var/lib/containerd/io.containerd.content.v1.content/" + blob, gzipped(t, layer), "app/key.pem", "app/key.pem"},
		"an archive in a layer":     {"srv/wms.tar", tarred(t, entry{blob, tarred(t, entry{"opt/keys.tgz", gzipped(t, layer)})}), blob + "/opt/keys.tgz/app/key.pem", "opt/keys.tgz"},
		"an archive in a container": {"var/lib/docker/overlay2/4f2a/diff/opt/keys.tar", layer, "app/key.pem", "opt/keys.tar"},
	} {
		want := Finding{Rule: "private key", Inside: c.inside, Image: c.image, Offset: 20}
		if found := search(t, s, c.path, []byte(c.content)); len(found) != 1 || found[0] != want {
			t.Errorf("%s: found %+v, want one: %+v", name, found, want)
		}
	}
}

func TestARuleHoldsByThePathInAnArchive(t *testing.T) {
	s := NewScanner()
	const url, login = "postgresql://wms:hunter2@db/wms\n", `{"auths":{"r":{"auth":"dTpw"}}}`
	for _, c := range []struct {
		path, inside, content string
		layer                 bool
		rule                  string // none when empty
	}{
		{"usr/share/wms.tar", "etc/app/settings", url, true, "password in a URL"},
		{"usr/share/wms.tar", "usr/lib/app/settings", url, true, ""},
		{"opt/wms.tar", "usr/lib/app/settings", url, true, ""}, // what is in an image isn't where its archive is
		{"usr/share/wms.tar", "etc/app/python3.13/settings", url, true, ""},
		{"usr/share/backup.tar", "etc/app/settings", url, false, "password in a URL"}, // of a system
		{"opt/backup.tar", "settings", url, false, "password in a URL"},               // of a directory that it is in
		{"usr/share/backup.tar", "settings", url, false, ""},
		{"usr/share/wms.tar", "root/.docker/config.json", login, true, "registry login"},
		{"usr/share/wms.tar", "etc/wireguard/wg0.conf", "PrivateKey=x", true, "WireGuard key"},
		{"usr/share/backup.tar", "etc/wireguard/wg0.conf", "PrivateKey=x", false, "WireGuard key"},
		{"etc/wireguard", "wg0.conf", "PrivateKey=x", false, "WireGuard key"},
		{"usr/share/wms.tar", "usr/share/doc/config.json", login, true, ""},
	} {
		content := tarred(t, entry{c.inside, c.content})
		want := Finding{Rule: c.rule, Inside: c.inside}
		if c.layer {
			content = tarred(t, entry{blob, content})
			want.Inside, want.Image = blob+"/"+c.inside, c.inside
		}
		found := search(t, s, c.path, []byte(content))
		for i := range found {
			found[i].Offset = 0
		}
		if c.rule == "" && len(found) > 0 || c.rule != "" && (len(found) != 1 || found[0] != want) {
			t.Errorf("%s in %s: found %+v, want %+v", c.inside, c.path, found, want)
		}
	}
}

// all is an archive with every sort of header, and where its entries' data end.
func all(t testing.TB) (content string, ends []int) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, header := range []tar.Header{
		{Name: "app/one", Format: tar.FormatUSTAR},
		{Name: "app/" + strings.Repeat("long/", 60) + "two", Format: tar.FormatPAX},
		{Name: "app/" + strings.Repeat("long/", 60) + "three", Format: tar.FormatGNU},
		{Name: "app/four", Format: tar.FormatPAX, PAXRecords: map[string]string{"SCHILY.xattr.user.note": "text"}},
	} {
		add(t, w, header, strings.Repeat(".", 700))
		ends = append(ends, b.Len())
	}
	for _, header := range []tar.Header{
		{Name: "app/", Typeflag: tar.TypeDir},
		{Name: "app/link", Typeflag: tar.TypeSymlink, Linkname: "one"},
		{Name: "app/same", Typeflag: tar.TypeLink, Linkname: "app/one"},
		{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "text"}},
	} {
		if err := w.WriteHeader(&header); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	b.WriteString(strings.Repeat("\x00", 2000) + strings.Repeat("behind the end ", 100))
	return b.String(), ends
}

// Whatever a credential destroys of an archive where it is written, and wherever the archive ends early, it is found.
func TestNoByteOfAnArchiveIsLeftOut(t *testing.T) {
	s := NewScanner()
	credential := " AKIA" + letters(upper, 16) + " "
	content, ends := all(t)
	for at := 0; at+len(credential) <= len(content); at += 67 {
		if slices.ContainsFunc(ends, func(end int) bool { return at < end && end < at+len(credential)-1 }) {
			continue // two halves of one are none
		}
		written := content[:at] + credential + content[at+len(credential):]
		for name, damaged := range map[string]string{"written over it": written, "and cut off": written[:at+len(credential)]} {
			for how, packed := range map[string]string{"": damaged, "compressed": gzipped(t, damaged), "in another": tarred(t, entry{"inner.tar", damaged})} {
				if found := search(t, s, "file", []byte(packed)); len(found) != 1 {
					t.Fatalf("at %d, %s %s: found %v, want one", at, name, how, found)
				}
			}
		}
	}
}

func TestADamagedArchiveIsSearchedAsItIsFromThereOn(t *testing.T) {
	s := NewScanner()
	key := planted(t)["private key"][0]
	first := tarred(t, entry{"etc/ssl/a.key", key})
	sound := tarred(t, entry{"etc/ssl/a.key", key}, entry{"etc/ssl/b.key", key})
	second := strings.LastIndex(sound, "etc/ssl/b.key")
	for name, content := range map[string]string{
		"another header": sound[:second] + "x" + sound[second+1:],
		"no header":      sound[:second] + strings.Repeat("x", tarBlock) + sound[second+tarBlock:],
		"one more end":   first + sound[second:],
		"something else": first + key,
	} {
		for how, packed := range map[string]string{"plain": content, "compressed": gzipped(t, content)} {
			found := search(t, s, "file", []byte(packed))
			if len(found) != 2 || found[0].Inside != "etc/ssl/a.key" || found[1].Inside != "" || found[1].Offset < int64(second) {
				t.Errorf("%s, %s: found %+v, want the second as it is", name, how, found)
			}
		}
	}
	// Gzip that is damaged in an archive, and in one of an archive: what is behind the damage isn't packed.
	zipped := gzipped(t, tarred(t, entry{"a", strings.Repeat("text ", window)}))
	damaged := zipped[:len(zipped)/2] + key
	for inside, content := range map[string]string{
		"etc/b.gz": damaged, "etc/c.tar/b.gz": tarred(t, entry{"b.gz", damaged}),
	} {
		name, _, _ := strings.Cut(inside, "/b.gz")
		if inside == "etc/b.gz" {
			name = inside
		}
		found := search(t, s, "file", []byte(tarred(t, entry{name, content}, entry{"etc/d.key", key})))
		want := []string{inside, "etc/d.key"}
		if len(found) != 2 || found[0].Inside != want[0] || found[1].Inside != want[1] {
			t.Errorf("found %+v, want one in each of %v", found, want)
		}
	}
}

func TestAnArchiveThatOnlyBeginsLikeOneIsSearchedAsItIs(t *testing.T) {
	s := NewScanner()
	key := planted(t)["private key"][0]
	content := strings.Repeat(".", 257) + "ustar" + strings.Repeat(".", 1000) + key
	if found := search(t, s, "file", []byte(content)); len(found) != 1 || found[0].Inside != "" || found[0].Offset < 1262 {
		t.Errorf("found %+v, want one", found)
	}
	if found := search(t, s, "file", []byte(content[:262])); len(found) > 0 {
		t.Errorf("in half a block: found %+v", found)
	}
}

func TestArchivesInsideOneAnotherAreLookedIntoOnlySoFar(t *testing.T) {
	content := tarred(t, entry{"key", planted(t)["private key"][0]})
	inside := ""
	for i := range maxDepth {
		content = tarred(t, entry{fmt.Sprint(i), gzipped(t, content)})
		inside = strings.TrimSuffix(fmt.Sprint(i)+"/"+inside, "/")
	}
	found := search(t, NewScanner(), "file", []byte(content))
	if len(found) != 1 || found[0].Inside != inside || found[0].Offset < tarBlock {
		t.Errorf("found %+v, want one in %s, behind a header", found, inside)
	}
}

// sparse is an archive whose entry has holes of this length around its data, as the two sorts of GNU tar write it.
func sparse(hole int64, data string) map[string]string {
	block := func(name, magic string, kind byte, size int, more func([]byte)) string {
		b := make([]byte, tarBlock)
		copy(b, name)
		copy(b[100:], "0000644\x000000000\x000000000\x00"+fmt.Sprintf("%011o\x00%011o\x00        ", size, 0))
		b[156] = kind
		copy(b[257:], magic)
		more(b)
		sum := 0
		for _, c := range b {
			sum += int(c)
		}
		copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
		return string(b)
	}
	padded := func(s string) string { return s + strings.Repeat("\x00", (tarBlock-len(s)%tarBlock)%tarBlock) }
	const nothing = "\x00"
	old := block("etc/sparse", "ustar  \x00", tar.TypeGNUSparse, len(data), func(b []byte) {
		copy(b[386:], fmt.Sprintf("%011o\x00%011o\x00", hole, len(data)))
		copy(b[483:], fmt.Sprintf("%011o\x00", 2*hole+int64(len(data))))
	})
	var records string
	for _, r := range []string{
		"GNU.sparse.major=0", "GNU.sparse.minor=1", "GNU.sparse.name=etc/sparse", "GNU.sparse.numblocks=1",
		fmt.Sprintf("GNU.sparse.map=%d,%d", hole, len(data)), fmt.Sprintf("GNU.sparse.size=%d", 2*hole+int64(len(data))),
	} {
		size := len(r) + 3 // a space, the line's end, and the length's own digits
		for len(fmt.Sprint(size))+2+len(r) != size {
			size++
		}
		records += fmt.Sprintf("%d %s\n", size, r)
	}
	pax := block("pax", "ustar\x0000", tar.TypeXHeader, len(records), func([]byte) {}) + padded(records) +
		block("etc/sparse", "ustar\x0000", tar.TypeReg, len(data), func([]byte) {})
	end := padded(data) + strings.Repeat(nothing, 2*tarBlock)
	return map[string]string{"old": old + end, "pax": pax + end}
}

func TestTheHolesOfASparseEntryAreNotRead(t *testing.T) {
	const hole = 8 << 30 // the most that eleven octal digits say; as zeros they would take minutes
	key := planted(t)["private key"][0]
	for name, content := range sparse(hole, key) {
		if header, err := tar.NewReader(strings.NewReader(content)).Next(); err != nil || header.Size != 2*hole+int64(len(key)) {
			t.Fatalf("%s: %+v, %v: the test's archive isn't sparse", name, header, err)
		}
		found := search(t, NewScanner(), "file", []byte(content))
		if len(found) != 1 || found[0].Inside != "" || found[0].Offset < tarBlock || found[0].Offset > int64(len(content)) {
			t.Errorf("%s: found %+v, want one among what the archive has", name, found)
		}
	}
}

// zeros are read without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestAnEntryOfAnySizeTakesTheSameMemory(t *testing.T) {
	s := NewScanner()
	key := planted(t)["private key"][0]
	tall := tarred(t, entry{"key", key})
	allocated := func(size int64) uint64 {
		var b bytes.Buffer
		if err := tar.NewWriter(&b).WriteHeader(&tar.Header{Name: "zeros", Size: size}); err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		var found []Finding
		err := s.File(t.Context(), "file", io.MultiReader(&b, io.LimitReader(zeros{}, size), strings.NewReader(tall)), func(f Finding) { found = append(found, f) })
		runtime.ReadMemStats(&after)
		if err != nil || len(found) != 1 || found[0].Inside != "key" {
			t.Fatalf("found %+v, %v", found, err)
		}
		return after.TotalAlloc - before.TotalAlloc
	}
	allocated(tarBlock)
	if small, large := allocated(tarBlock), allocated(64<<20); large > small+1<<20 {
		t.Errorf("64 MiB took %d bytes of memory, a block %d", large, small)
	}
}

func TestAnArchiveThatCantBeReadIsAnError(t *testing.T) {
	s := NewScanner()
	none := func(f Finding) { t.Errorf("found %v", f) }
	content := tarred(t, entry{"a", strings.Repeat(".", 3*levelBuffer)}, entry{"b", "b"})
	for name, packed := range map[string]string{"plain": content, "compressed": gzipped(t, content+letters(alnum, 3*levelBuffer))} {
		for _, length := range []int{1, tarBlock, levelBuffer, 2*levelBuffer + 1} {
			r := io.MultiReader(strings.NewReader(packed[:length]), broken{bytes.NewReader(nil)})
			if err := s.File(t.Context(), "file", r, none); !errors.Is(err, errBroken) {
				t.Errorf("%s, from byte %d on: got %v, want %v", name, length, err, errBroken)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	stop := io.MultiReader(strings.NewReader(content[:2*tarBlock]), cancelling{cancel}, zeros{})
	if err := s.File(ctx, "file", stop, none); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that it was cancelled", err)
	}
	long := tarred(t, entry{"root/.netrc", strings.Repeat("#", maxLogin+1)}, entry{"b", "b"})
	if err := s.File(t.Context(), "file", strings.NewReader(long), none); err == nil || !strings.Contains(err.Error(), ".netrc") {
		t.Errorf("got %v, want that a login file is too long", err)
	}
}

// cancelling cancels when it is read, and has nothing.
type cancelling struct{ cancel func() }

func (c cancelling) Read([]byte) (int, error) {
	c.cancel()
	return 0, io.EOF
}

// BenchmarkArchive compares an archive of a system's files, of most sizes that those have, with the same bytes searched as
// they are.
func BenchmarkArchive(b *testing.B) {
	random := make([]byte, 4<<20)
	_, _ = rand.Read(random)
	text := strings.Repeat("The private part of a key is not in https://example.com/keys, nor AKIN to it; see ghostscript.\n", 1<<10)
	var entries []entry
	for i := range 1500 {
		name := fmt.Sprintf("usr/lib/python3/dist-packages/package%d/module%d.py", i/20, i)
		entries = append(entries, entry{name, text[:200+i*37%20_000]})
	}
	for i := range 8 {
		entries = append(entries, entry{fmt.Sprintf("usr/lib/x86_64-linux-gnu/lib%d.so", i), string(random)})
	}
	archive := tarred(b, entries...)
	asItIs := strings.Replace(archive, "ustar", "USTAR", 1)
	for _, c := range []struct{ name, content string }{
		{"bytes", asItIs}, {"tar", archive}, {"compressed bytes", gzipped(b, asItIs)}, {"compressed tar", gzipped(b, archive)},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := NewScanner()
			b.SetBytes(int64(len(archive)))
			for b.Loop() {
				if err := s.File(b.Context(), "usr/file", strings.NewReader(c.content), func(Finding) {}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
