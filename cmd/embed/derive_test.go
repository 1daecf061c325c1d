package main

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"seqembed/internal/seqio"
	"seqembed/internal/store"
	"seqembed/pool"
)

// touching is a writer that changes the modification time of the file at path with every write.
type touching struct {
	t    *testing.T
	path string
}

func (w touching) Write(p []byte) (int, error) {
	if err := os.Chtimes(w.path, time.Time{}, time.Unix(1, 0)); err != nil {
		w.t.Error(err)
	}
	return len(p), nil
}

// TestDeriveChangedInput checks that the translation of an input fails if the input changes during the translation.
func TestDeriveChangedInput(t *testing.T) {
	workspace(t)
	// The chunks of the record do not fit into the write buffer of 64 KiB. So the translation writes to w before it
	// ends, and a touching w then changes the input.
	path := write(t, "a.fna", ">a\n"+strings.Repeat("ATGGCCGCA", 20_000)+"\n")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []struct {
		io.Writer
		want error
	}{{io.Discard, nil}, {touching{t, path}, pool.ErrChanged}} {
		d := &derived{Input: seqio.Input{Path: path}}
		d.entry.Input.Modified = info.ModTime()
		tr := &translation{ctx: t.Context(), derived: d, length: 500}
		if err := tr.write([]io.Writer{w, io.Discard, io.Discard}); !errors.Is(err, w.want) || !errors.Is(tr.err, w.want) {
			t.Errorf("%v and %v, want %v", err, tr.err, w.want)
		}
	}
}

// TestMergeFails checks that an input is listed as failed if its two outputs cannot be merged. Here both outputs are
// the same file, which holds proteins and no DNA.
func TestMergeFails(t *testing.T) {
	workspace(t)
	write(t, "a.faa", proteinFile)
	// The run writes out/a_ESM.pt, an output of proteins.
	r := embed(t, "--esm-model", tiny, "--format", "virnucpro", "-o", "out", "a.faa").wantCode(exitDone)
	if !strings.Contains(r.stderr, "VirNucPro cannot use these embeddings") || !strings.Contains(r.stderr, "esm2-3b") {
		t.Errorf("no warning of a model that VirNucPro cannot use: %s", r.stderr)
	}
	var stderr strings.Builder
	s := &settings{out: "out", logFormat: "text", preset: &virNucPro}
	screen, terminal := newScreen(&stderr)
	log, err := newLog(s, screen, terminal)
	if err != nil {
		t.Fatal(err)
	}
	c := &command{settings: s, log: log, progress: newProgress(s, log, screen, terminal)}
	run := &presetRun{command: c}
	if err := run.readManifest(t.Context()); err != nil {
		t.Fatal(err)
	}
	d := run.newDerived(seqio.Input{Path: "a.fna", Name: "a"})
	d.entry = store.Entry{Model: "virnucpro", Input: store.Source{Path: "a.fna"}, Parameters: run.parameters()}
	run.inputs, c.total.Resumed = []*derived{d}, d.paths
	file := func(path, name string) []pool.File { return []pool.File{{Input: seqio.Input{Path: path, Name: name}}} }
	output := pool.Output{Dir: "out", Label: "ESM", Format: store.VirNucPro, Columns: []store.Column{{Pooling: store.Mean}}}
	models := []*model{{job: &pool.Job{Files: file(d.paths[1], "a"), Output: output}}, {job: &pool.Job{Files: file(d.paths[2], "a"), Output: output}}}
	if err := run.mergeAll(t.Context(), models); err != nil || len(c.total.Failed) != 1 || c.total.Failed[0].Path != "a.fna" {
		t.Errorf("the failed inputs are %v, error %v", c.total.Failed, err)
	}
	if !strings.Contains(stderr.String(), "same records") {
		t.Errorf("the log says %s", stderr.String())
	}
	wantFiles(t, "out", "a_ESM.pt", "manifest.jsonl")
}
