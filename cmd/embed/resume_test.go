package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFormatsStandSideBySide checks that outputs in several formats stay complete in one folder, in whatever order the
// formats are written.
func TestFormatsStandSideBySide(t *testing.T) {
	workspace(t)
	write(t, "one.faa", proteinFile)
	done := map[string]bool{}
	for _, format := range []string{"parquet", "npy", "parquet", "safetensors", "npy", "virnucpro", "safetensors", "parquet"} {
		r := embed(t, "--esm-model", tiny, "-o", "out", "--format", format, "one.faa").wantCode(0)
		if complete := strings.Contains(r.stdout, "was complete already"); complete != done[format] {
			t.Errorf("%s: complete %v, want %v", format, complete, done[format])
		}
		done[format] = true
	}
	wantFiles(t, "out", "manifest.jsonl", "one.esm2-tiny.ids.txt", "one.esm2-tiny.npy", "one.esm2-tiny.parquet", "one.esm2-tiny.safetensors", "one_ESM.pt")
}

// TestInputByAnotherPath checks that a file counts as the same input if its path is spelled in another way or goes
// through a link, or if the file was copied or moved. A file with other content must count as another input.
func TestInputByAnotherPath(t *testing.T) {
	workspace(t)
	write(t, "in/p.faa", proteinFile)
	run := func(path string) result { return embed(t, "--esm-model", tiny, "-o", "out", path) }
	run("in/p.faa").wantCode(0)
	absolute, err := filepath.Abs("in/p.faa")
	if err != nil {
		t.Fatal(err)
	}
	write(t, "copy/p.faa", proteinFile)
	paths := []string{"./in/p.faa", "in//p.faa", "in/../in/p.faa", absolute, "in", "copy/p.faa"}
	if os.Symlink("in", "link") == nil {
		paths = append(paths, "link/p.faa")
	}
	complete := func(path string) {
		t.Helper()
		if r := run(path).wantCode(0); !strings.Contains(r.stdout, "was complete already") || strings.Contains(r.stderr, "loading weights") {
			t.Errorf("%s is another input:\n%s", path, r.stdout)
		}
	}
	for _, path := range paths {
		complete(path)
	}
	if err := os.Rename("in", "moved"); err != nil {
		t.Fatal(err)
	}
	complete("moved/p.faa")
	write(t, "other/p.faa", strings.Replace(proteinFile, "MKV", "MKL", 1))
	run("other/p.faa").wantCode(exitNothing).wantProblem("was made from in/p.faa, not from other/p.faa", "--force")
}
