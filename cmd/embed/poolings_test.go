package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"seqembed/internal/half"
	"seqembed/internal/store"
	"seqembed/transformer"
)

// pooledRow is the row of a record in an output with the poolings mean, max and cls.
type pooledRow struct {
	ID   string    `parquet:"id"`
	Mean []float32 `parquet:"embedding_mean,list"`
	Max  []float32 `parquet:"embedding_max,list"`
	CLS  []float32 `parquet:"embedding_cls,list"`
}

// residueRow is a row of an output of --pool residues: the embedding of a token, and the positions of its first and its
// last letter in the record.
type residueRow struct {
	ID        string    `parquet:"id"`
	Start     int64     `parquet:"start"`
	End       int64     `parquet:"end"`
	Embedding []float32 `parquet:"embedding,list"`
}

// TestSeveralPoolings checks that each pooling has the same bits in a run with all poolings as in a computation of its
// own.
func TestSeveralPoolings(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds under the race detector; other tests run the same goroutines")
	}
	workspace(t)
	write(t, "p.faa", proteinFile)
	write(t, "n.fna", nucleotideFile)
	embed(t, "--esm-model", tiny, "--dnabert-model", tinyDNA, "--pool", "mean,max", "--pool", "cls,residues,none", "-o", "out", "p.faa", "n.fna").wantCode(0)
	for _, c := range []struct {
		model, stem string
		layer       int
		ids, seqs   []string
	}{
		{tiny, "out/p.esm2-tiny", 3, []string{"sp|P1|ONE", "two", "three"}, []string{proteins[0].seq, proteins[1].seq, proteins[2].seq}},
		{tinyDNA, "out/n.dnabert-tiny", 2, []string{"c1", "c2"}, []string{nucleotides[0].seq, nucleotides[1].seq}},
	} {
		rows := readParquet[pooledRow](t, c.stem+".parquet")
		residues := readParquet[residueRow](t, c.stem+".residues.parquet")
		tokens := readParquet[struct {
			Position  int64     `parquet:"position"`
			Embedding []float32 `parquet:"embedding,list"`
		}](t, c.stem+".tokens.parquet")
		for i, seq := range c.seqs {
			alone := func(p transformer.Pooling) []float32 { return reference(t, c.model, seq, p, c.layer)[0] }
			states := alone(transformer.Tokens)
			if r := rows[i]; r.ID != c.ids[i] || !slices.Equal(r.Mean, alone(transformer.Mean)) || !slices.Equal(r.Max, alone(transformer.Max)) || !slices.Equal(r.CLS, alone(transformer.CLS)) {
				t.Errorf("%s: record %d differs", c.stem, i)
			}
			dim := len(rows[i].Mean)
			for position, state := range slices.Collect(slices.Chunk(states, dim)) {
				if tokens[0].Position != int64(position) || !slices.Equal(tokens[0].Embedding, state) {
					t.Fatalf("%s: record %d, token %d differs", c.stem, i, position)
				}
				tokens = tokens[1:]
				if position == 0 || (position+1)*dim == len(states) {
					continue // the first and the last token are special, not residues
				}
				if r := residues[0]; r.ID != c.ids[i] || !slices.Equal(r.Embedding, state) || c.model == tiny && (r.Start != int64(position) || r.End != r.Start) {
					t.Fatalf("%s: record %d, residue %d is %s %d-%d", c.stem, i, position, r.ID, r.Start, r.End)
				}
				residues = residues[1:]
			}
		}
		if len(tokens)+len(residues) > 0 {
			t.Errorf("%s: %d tokens and %d residues too many", c.stem, len(tokens), len(residues))
		}
	}
	entry := lastEntry(t, "out")
	if entry.Parameters["pool"] != "mean,max,cls,residues,tokens" || entry.Parameters["dtype_out"] != "fp32" || len(entry.Outputs) != 3 {
		t.Errorf("the manifest has %+v", entry)
	}
	embed(t, "--esm-model", tiny, "--pool", "mean", "-o", "out", "p.faa").wantCode(exitNothing).wantProblem(`pool "mean,max,cls,residues,tokens", now "mean"`)
	embed(t, "--esm-model", tiny, "--pool", "mean,max,cls,residues,tokens", "--dtype-out", "fp16", "-o", "out", "p.faa").wantCode(exitNothing).
		wantProblem(`dtype_out "fp32", now "fp16"`)
}

// lastEntry returns the last entry of the manifest in a folder.
func lastEntry(t *testing.T, dir string) (entry store.Entry) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, store.ManifestName))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(content)), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &entry); err != nil {
		t.Fatal(err)
	}
	return entry
}

// TestFloat16Output checks that an output in float16 has the values of the output in float32, rounded.
func TestFloat16Output(t *testing.T) {
	workspace(t)
	write(t, "p.faa", proteinFile)
	args := []string{"--esm-model", tiny, "--format", "safetensors", "p.faa"}
	embed(t, append(args, "-o", "single")...).wantCode(0)
	embed(t, append(args, "-o", "half", "--dtype-out", "fp16")...).wantCode(0)
	single, _ := readSafetensors(t, "single/p.esm2-tiny.safetensors")
	halves, _ := readSafetensors(t, "half/p.esm2-tiny.safetensors")
	for i, row := range single["embeddings"] {
		for c, v := range row {
			if got, want := halves["embeddings"][i][c], half.FromFP16(half.ToFP16(v)); got != want {
				t.Fatalf("row %d, column %d: %v, want %v", i, c, got, want)
			}
		}
	}
	if size := func(path string) int64 { info, _ := os.Stat(path); return info.Size() }; 2*size("half/p.esm2-tiny.safetensors") > size("single/p.esm2-tiny.safetensors")+1000 {
		t.Error("the file is not smaller")
	}
}

// TestEqualSequencesAreComputedOnce checks records whose sequences are equal after gaps are removed, letters are
// upper-cased and long sequences are truncated. Each row must have the values of its sequence alone. The summary and
// the manifest must count the repeated records.
func TestEqualSequencesAreComputedOnce(t *testing.T) {
	workspace(t)
	write(t, "p.faa", ">a\nMKVLWAALLVTFLAG\n>b\nMAMAMAMA\n>c\nmkvlwa--allvtf\n>d\nMKVLWAALLVTFCCC\n>e\nMKV\n>f\nMAMAMAMA\n")
	r := embed(t, "--esm-model", tiny, "--max-length", "12", "--gaps", "remove", "--pool", "mean,max", "-o", "out", "p.faa").wantCode(0)
	if !strings.Contains(r.stdout, "computed once: 3 records are equal to earlier ones of their file") {
		t.Errorf("summary %q", r.stdout)
	}
	if entry := lastEntry(t, "out"); entry.Repeated != 3 || entry.Records != 6 || entry.Truncated != 2 {
		t.Errorf("the manifest has %d repeated of %d records", entry.Repeated, entry.Records)
	}
	rows := readParquet[struct {
		ID        string    `parquet:"id"`
		Truncated bool      `parquet:"truncated"`
		Length    int64     `parquet:"record_length"`
		Mean      []float32 `parquet:"embedding_mean,list"`
		Max       []float32 `parquet:"embedding_max,list"`
	}](t, "out/p.esm2-tiny.parquet")
	for i, want := range []struct {
		id, seq   string
		truncated bool
		length    int64
	}{{"a", "MKVLWAALLVTF", true, 15}, {"b", "MAMAMAMA", false, 8}, {"c", "MKVLWAALLVTF", false, 12}, {"d", "MKVLWAALLVTF", true, 15},
		{"e", "MKV", false, 3}, {"f", "MAMAMAMA", false, 8}} {
		r := rows[i]
		if r.ID != want.id || r.Truncated != want.truncated || r.Length != want.length ||
			!slices.Equal(r.Mean, reference(t, tiny, want.seq, transformer.Mean, 3)[0]) || !slices.Equal(r.Max, reference(t, tiny, want.seq, transformer.Max, 3)[0]) {
			t.Errorf("row %d is %s, %v, %d letters, or has other values", i, r.ID, r.Truncated, r.Length)
		}
	}
}
