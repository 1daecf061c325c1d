package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// testRelease returns a release with a little content, and two files for its archives: a program, and the licences of
// third parties.
func testRelease() (r *release, program, third entry) {
	r = &release{root: "../..", version: "1.2.3", date: time.Unix(1_700_000_001, 0).UTC(),
		common: []entry{{"man/man1/embed.1", []byte("page\n"), 0o644}, {"README.md", []byte("read\n"), 0o644}}}
	return r, entry{"embed", bytes.Repeat([]byte("program "), 1000), 0o755}, entry{"THIRD-PARTY-LICENSES.txt", []byte("others\n"), 0o644}
}

// packed is a file in an archive.
type packed struct {
	content string
	mode    os.FileMode
	date    time.Time
}

// unzip returns the files of a zip file.
func unzip(t *testing.T, content []byte) map[string]packed {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	list := map[string]packed{}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		list[f.Name] = packed{string(text), f.Mode(), f.Modified.UTC()}
	}
	return list
}

// untar returns the files of a .tar.gz file.
func untar(t *testing.T, content []byte) map[string]packed {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	list := map[string]packed{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.Gname != "" {
			t.Errorf("%s has an owner", h.Name)
		}
		list[h.Name] = packed{string(text), h.FileInfo().Mode(), h.ModTime.UTC()}
	}
}

// TestArchives checks the names, contents, modes and times of the files in a .tar.gz and in a .zip archive.
func TestArchives(t *testing.T) {
	r, program, third := testRelease()
	files := append([]entry{program, third}, r.common...)
	for name, c := range map[string]struct {
		platform
		unpack func(*testing.T, []byte) map[string]packed
	}{
		"seqembed-1.2.3-linux-amd64-static.tar.gz": {platform{goos: "linux", goarch: "amd64", static: true}, untar},
		"seqembed-1.2.3-windows-amd64.zip":         {platform{goos: "windows", goarch: "amd64"}, unzip},
	} {
		archive, err := r.archive(c.platform, files)
		if err != nil || archive.name != name {
			t.Fatalf("%s, want %s, error %v", archive.name, name, err)
		}
		got := c.unpack(t, archive.content)
		folder := strings.TrimSuffix(strings.TrimSuffix(name, ".tar.gz"), ".zip")
		for _, f := range files {
			if p := got[path.Join(folder, f.name)]; p.content != string(f.content) || p.mode != f.mode || !p.date.Equal(r.date) {
				t.Errorf("%s: %s has %d bytes, mode %v, date %v", name, f.name, len(p.content), p.mode, p.date)
			}
		}
		if len(got) != len(files) {
			t.Errorf("%s has %d files, want %d", name, len(got), len(files))
		}
	}
}

// TestWheel checks a wheel as pip does. Each file except RECORD must be listed in RECORD with its digest and size. The
// file WHEEL must list the tags in the name of the wheel. The wheel must contain the licence files that METADATA lists.
func TestWheel(t *testing.T) {
	r, program, third := testRelease()
	p := platform{goos: "linux", goarch: "amd64", wheel: "manylinux_2_17_x86_64.manylinux2014_x86_64"}
	wheel, err := r.wheel(p, program, third)
	if err != nil || wheel.name != "seqembed-1.2.3-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl" {
		t.Fatalf("%s, error %v", wheel.name, err)
	}
	files := unzip(t, wheel.content)
	const info = "seqembed-1.2.3.dist-info/"
	var want []string
	for name, f := range files {
		line := info + "RECORD,,"
		if name != info+"RECORD" {
			sum := sha256.Sum256([]byte(f.content))
			line = fmt.Sprintf("%s,sha256=%s,%d", name, base64.RawURLEncoding.EncodeToString(sum[:]), len(f.content))
		}
		want = append(want, line)
		mode := os.FileMode(0o644)
		if name == "seqembed-1.2.3.data/scripts/embed" {
			mode = 0o755
		}
		if f.mode != mode || !f.date.Equal(r.date) {
			t.Errorf("%s has mode %v, date %v", name, f.mode, f.date)
		}
	}
	got := strings.Split(strings.TrimSuffix(files[info+"RECORD"].content, "\n"), "\n")
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("RECORD is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if files["seqembed-1.2.3.data/scripts/embed"].content != string(program.content) || files["seqembed/__init__.py"].content == "" {
		t.Error("the program or the reader is missing")
	}
	for tag := range strings.SplitSeq(p.wheel, ".") {
		if !strings.Contains(files[info+"WHEEL"].content, "\nTag: py3-none-"+tag+"\n") {
			t.Errorf("WHEEL has no tag %s", tag)
		}
	}
	for line := range strings.Lines(files[info+"METADATA"].content) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "License-File: "); ok && files[info+"licenses/"+name].content == "" {
			t.Errorf("the licence file %s is missing", name)
		}
	}
}

// TestSameBytes packs all archives and wheels twice and checks that the bytes are the same.
func TestSameBytes(t *testing.T) {
	pack := func() (all []byte) {
		r, program, third := testRelease()
		for _, p := range platforms {
			archive, err := r.archive(p, append([]entry{program, third}, r.common...))
			if err != nil {
				t.Fatal(err)
			}
			wheel, err := r.wheel(p, program, third)
			if err != nil {
				t.Fatal(err)
			}
			all = append(append(all, archive.content...), wheel.content...)
		}
		return all
	}
	if !bytes.Equal(pack(), pack()) {
		t.Error("the second archives differ from the first ones")
	}
}

// TestDate checks that date returns the time in SOURCE_DATE_EPOCH, and an error if that is not a number.
func TestDate(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	if d, err := date("."); err != nil || d.Format(time.RFC3339) != "2023-11-14T22:13:20Z" {
		t.Errorf("%v, error %v", d, err)
	}
	t.Setenv("SOURCE_DATE_EPOCH", "yesterday")
	if _, err := date("."); err == nil {
		t.Error("yesterday is a date")
	}
}

// TestEmptyFolder checks that emptyFolder replaces a folder with an earlier release, but not a folder with other files.
func TestEmptyFolder(t *testing.T) {
	out := filepath.Join(t.TempDir(), "dist")
	for range 2 {
		if err := emptyFolder(out); err != nil {
			t.Fatal(err)
		}
	}
	other := filepath.Join(t.TempDir(), "mine.txt")
	if err := os.WriteFile(other, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := emptyFolder(filepath.Dir(other)); err == nil {
		t.Error("a folder of other files is replaced")
	}
	if _, err := os.Stat(other); err != nil {
		t.Error(err)
	}
}

// TestOldDate checks that a date before 1980, which a zip file cannot hold, becomes 1980.
func TestOldDate(t *testing.T) {
	content, err := zipFile([]entry{{"a", nil, 0o644}}, time.Unix(0, 0).UTC())
	if err != nil {
		t.Fatal(err)
	}
	if got := unzip(t, content)["a"].date; got.Year() != 1980 {
		t.Errorf("the date is %v", got)
	}
}

// TestLicences checks that licences returns the licences of Go and of each module in a program. It uses the test
// program itself and, if it was built, embed. A module without a licence file must be an error.
func TestLicences(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{self, "../../embed"} {
		if _, err := os.Stat(program); err != nil {
			continue
		}
		info, err := buildinfo.ReadFile(program)
		if err != nil {
			t.Fatal(err)
		}
		text, err := licences(program)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range append(moduleTitles(info), "\nGo ") {
			if !bytes.Contains(text, []byte(want)) {
				t.Errorf("%s: no licence of %q", filepath.Base(program), want)
			}
		}
		if !bytes.Contains(text, []byte("The Go Authors")) {
			t.Error("the licence of Go is missing")
		}
	}
	var b bytes.Buffer
	empty := t.TempDir()
	if err := addLicences(&b, "m v1", empty); err == nil || !strings.Contains(err.Error(), "m v1") {
		t.Errorf("a module without a licence: %v", err)
	}
	for _, name := range []string{"LICENSE-APACHE.md", "copying", "NOTICE"} {
		if err := os.WriteFile(filepath.Join(empty, name), []byte("text of "+name), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if err := addLicences(&b, "m v1", empty); err != nil || strings.Count(b.String(), "text of ") != 3 {
		t.Errorf("%v: %s", err, b.String())
	}
}

// moduleTitles returns, for each module in a program, the line with which its licences begin.
func moduleTitles(info *buildinfo.BuildInfo) (titles []string) {
	for _, m := range info.Deps {
		titles = append(titles, "\n"+m.Path+" "+m.Version+", ")
	}
	return titles
}

// TestTexts checks that every archive contains the pages and scripts that the pages in it name. The scripts must be
// executable.
func TestTexts(t *testing.T) {
	r := &release{root: filepath.Join("..", "..")}
	for _, name := range texts {
		if err := r.add(name); err != nil {
			t.Fatal(err)
		}
	}
	modes := map[string]os.FileMode{}
	for _, e := range r.common {
		modes[e.name] = e.mode
	}
	named := regexp.MustCompile(`\b(?:docs/[a-z-]+\.md|deploy/(?:slurm|snakemake|k8s)/[A-Za-z.]+[a-z])\b`)
	for _, e := range r.common {
		for _, name := range named.FindAllString(string(e.content), -1) {
			if modes[name] == 0 {
				t.Errorf("%s names %s, which is in no archive", e.name, name)
			}
			if filepath.Ext(name) == ".sh" && modes[name] != 0o755 {
				t.Errorf("%s has the mode %o", name, modes[name])
			}
		}
	}
	if modes["docs/faults.md"] == 0 || modes["deploy/nextflow/main.nf"] == 0 {
		t.Errorf("only %d files are in the archives", len(modes))
	}
}
