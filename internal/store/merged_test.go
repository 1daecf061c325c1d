package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"seqembed/weights"
)

// pair writes a DNA file and a protein file with the same ids and returns their paths and rows.
func pair(t *testing.T, count, dnaDim, proteinDim int) (dna, protein string, dnaRows, proteinRows []Row) {
	t.Helper()
	s := spec(t, VirNucPro, 12)
	s.Kind, s.Model, s.Dim = Nucleotide, "DNABERT_S", dnaDim
	dnaRows = makeRows(s, count)
	dna = writeAll(t, s, dnaRows)[0].Path
	s.Kind, s.Model, s.Dim = Protein, "ESM", proteinDim
	proteinRows = makeRows(s, count)
	for i := range proteinRows {
		proteinRows[i].ID = dnaRows[i].ID
	}
	return dna, writeAll(t, s, proteinRows)[0].Path, dnaRows, proteinRows
}

func TestMergeVirNucPro(t *testing.T) {
	for _, count := range []int{1, 3, 300} {
		dna, protein, d, p := pair(t, count, 7, 5)
		path := filepath.Join(t.TempDir(), "sample_merged.pt")
		file, err := MergeVirNucPro(t.Context(), dna, protein, path)
		if err != nil {
			t.Fatal(err)
		}
		if sum, err := HashFile(t.Context(), path); err != nil || file.Path != path || file.SHA256 != sum {
			t.Errorf("the file is described as %+v, and its SHA-256 is %s (error %v)", file, sum, err)
		}
		object := loadTorch(t, path)
		checkIDs(t, object["ids"], d)
		tensor, ok := object["data"].(*weights.Tensor)
		if !ok || !slices.Equal(tensor.Shape(), []int{count, 12}) || len(object) != 2 {
			t.Fatalf("the file contains %v", object)
		}
		values, err := tensor.Float32s()
		if err != nil {
			t.Fatal(err)
		}
		for i := range count {
			if row := values[12*i : 12*i+12]; !sameBits(row[:7], d[i].Embeddings[0]) || !sameBits(row[7:], p[i].Embeddings[0]) {
				t.Errorf("row %d is %v", i, row)
			}
		}
		if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
			t.Errorf("the folder holds %v, error %v", left, err)
		}
	}
}

// TestMergedMatchesPublished checks that a file of MergeVirNucPro has the same keys, types and shape as a file that the
// program VirNucPro itself has written.
func TestMergedMatchesPublished(t *testing.T) {
	published := filepath.Join("..", "..", "..", "shared", "goldens", "published", "virnucpro", "output_1_merged.pt")
	if _, err := os.Stat(published); err != nil {
		t.Skip("../shared/goldens/published/virnucpro does not exist")
	}
	dna, protein, _, _ := pair(t, 4, 768, 2560)
	path := filepath.Join(t.TempDir(), "m.pt")
	if _, err := MergeVirNucPro(t.Context(), dna, protein, path); err != nil {
		t.Fatal(err)
	}
	got, want := loadTorch(t, path), loadTorch(t, published)
	if outline(got) != outline(want) || !slices.Equal(got["data"].(*weights.Tensor).Shape(), want["data"].(*weights.Tensor).Shape()) {
		t.Errorf("%s, published %s", outline(got), outline(want))
	}
}

func TestMergeRefuses(t *testing.T) {
	dna, protein, _, rows := pair(t, 3, 4, 4)
	dir := t.TempDir()
	s := spec(t, VirNucPro, 12)
	s.Kind, s.Model = Protein, "ESM"
	s.Dim = 4
	fewer := writeAll(t, s, rows[:2])[0].Path
	s = spec(t, VirNucPro, 12)
	s.Kind, s.Model, s.Dim = Protein, "ESM", 4
	slices.Reverse(rows)
	other := writeAll(t, s, rows)[0].Path
	short := filepath.Join(dir, "short.pt")
	content, err := os.ReadFile(dna)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(short, content[:len(content)/2], 0o666); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("the cause")
	cancel(cause)
	for _, c := range []struct {
		ctx          context.Context
		dna, protein string
		want         string
	}{
		{t.Context(), dna, fewer, "same records"},
		{t.Context(), dna, other, "same records"},
		{t.Context(), short, protein, "short.pt"},
		{t.Context(), protein, protein, "same records"},
		{t.Context(), dna, filepath.Join(dir, "absent.pt"), "absent.pt"},
		{ended, dna, protein, "the cause"},
	} {
		path := filepath.Join(dir, "m.pt")
		if _, err := MergeVirNucPro(c.ctx, c.dna, c.protein, path); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s and %s: %v, want %q", c.dna, c.protein, err, c.want)
		}
		if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
			t.Errorf("the folder holds %v, error %v", files, err)
		}
	}
}

// TestLongNumbers checks the pickle code of a small integer, and of an integer over 2³¹, such as the number of values
// in a large tensor.
func TestLongNumbers(t *testing.T) {
	var p pickle
	p.number(5)
	p.number(1 << 33)
	if want := "K\x05\x8a\x08\x00\x00\x00\x00\x02\x00\x00\x00"; string(p.buf) != want {
		t.Errorf("%q, want %q", p.buf, want)
	}
}
