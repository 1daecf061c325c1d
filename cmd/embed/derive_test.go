package main

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"seqembed/internal/seqio"
	"seqembed/pool"
)

// touching is a writer that makes the file at path look modified.
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

// TestDeriveChangedInput checks that an input that changes while it is translated fails.
func TestDeriveChangedInput(t *testing.T) {
	workspace(t)
	path := write(t, "a.fna", ">a\n"+strings.Repeat("ATGGCCGCA", 20_000)+"\n") // more than the buffers hold
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
