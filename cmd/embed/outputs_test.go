package main

import (
	"encoding/json"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"seqembed/kernels/cpu"
	"seqembed/transformer"
	"seqembed/weights"
)

// proteins and nucleotides are the records of proteinFile and of nucleotideFile, with the letters that the program
// embeds.
var (
	proteins = []struct{ id, description, seq string }{
		{"sp|P1|ONE", "a short one", "MKVLWAALLVTFLAGCQA"},
		{"two", "", "MA"},
		{"three", "of three", "MNIFEMLRIDEGLRLKIYKDTEGYYTIGIGHLLTKSPSLNAAKSELDKAIGRNTNGVITKDEAEKLFNQDVDAAVRGILRNAKLKPVYDSLDAVRRAALINMVFQMGETGVAG"},
	}
	nucleotides = []struct{ id, description, seq string }{
		{"c1", "contig one", "ACGTTGCAAGGCTTNACGT"},
		{"c2", "", "GATTACA"},
	}
)

const (
	proteinFile    = ">sp|P1|ONE a short one\nMKVLWAALLV\nTFLAGCQA*\n>two\nma\n>three of three\nMNIFEMLRIDEGLRLKIYKDTEGYYTIGIGHLLTKSPSLNAAKSELDKAIGRNTNGVITKDEAEKLFNQDVDAAVRGILRNAKLKPVYDSLDAVRRAALINMVFQMGETGVAG\n"
	nucleotideFile = ">c1 contig one\nacguugcaaggcttnACGT\n>c2\nGATTACA\n"
)

// TestBothModelsInEveryFormat embeds DNA and proteins with one command, in four formats. The ids must be in the order
// of the input, and each sequence must have the embedding that it has alone.
func TestBothModelsInEveryFormat(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds under the race detector; other tests run the same goroutines")
	}
	workspace(t)
	write(t, "prot.faa", proteinFile)
	write(t, "nucl.fna", nucleotideFile)
	want := map[string][]float32{}
	var proteinIDs, dnaIDs []string
	for _, p := range proteins {
		proteinIDs = append(proteinIDs, p.id)
		want[p.id] = reference(t, tiny, p.seq, transformer.Mean, 3)[0]
	}
	for _, n := range nucleotides {
		dnaIDs = append(dnaIDs, n.id)
		want[n.id] = reference(t, tinyDNA, n.seq, transformer.Mean, 2)[0]
	}
	check := func(t *testing.T, ids, wantIDs []string, rows [][]float32) {
		t.Helper()
		if !slices.Equal(ids, wantIDs) || len(rows) != len(ids) {
			t.Fatalf("ids %q and %d rows, want %q", ids, len(rows), wantIDs)
		}
		for i, id := range ids {
			if !slices.Equal(rows[i], want[id]) {
				t.Errorf("%s: %v…, want %v…", id, rows[i][:3], want[id][:3])
			}
		}
	}
	embedTo := func(t *testing.T, format string) result {
		t.Helper()
		return embed(t, "--dnabert-model", tinyDNA, "--esm-model", tiny, "--format", format, "-o", format, "prot.faa", "nucl.fna").wantCode(0)
	}

	t.Run("parquet", func(t *testing.T) {
		r := embedTo(t, "parquet")
		wantFiles(t, "parquet", "manifest.jsonl", "nucl.dnabert-tiny.parquet", "prot.esm2-tiny.parquet")
		var ids []string
		var rows [][]float32
		for i, row := range readParquet[parquetRow](t, "parquet/prot.esm2-tiny.parquet") {
			p := proteins[i]
			if row.Description != p.description || row.Length != int64(len(p.seq)) || row.Tokens != int64(len(p.seq)+2) || row.Truncated {
				t.Errorf("row %+v", row)
			}
			ids, rows = append(ids, row.ID), append(rows, row.Embedding)
		}
		check(t, ids, proteinIDs, rows)
		ids, rows = nil, nil
		for _, row := range readParquet[parquetRow](t, "parquet/nucl.dnabert-tiny.parquet") {
			ids, rows = append(ids, row.ID), append(rows, row.Embedding)
		}
		check(t, ids, dnaIDs, rows)
		metadata := parquetFile(t, "parquet/prot.esm2-tiny.parquet")
		for key, value := range map[string]string{"model": tiny, "pooling": "mean", "dtype": "fp32"} {
			if got, _ := metadata.Lookup(key); got != value {
				t.Errorf("metadata %s is %q", key, got)
			}
		}

		// All DNA is embedded before any protein.
		if d, p := strings.Index(r.stderr, "input=nucl.fna"), strings.Index(r.stderr, "embedding  model="+tiny); p >= 0 && d > p || d < 0 {
			t.Errorf("the order of work:\n%s", r.stderr)
		}
		for _, part := range []string{"5 records", "tokens/s", "truncated 0 records, skipped 0", "unknown letters", "nucl.fna -> parquet/nucl.dnabert-tiny.parquet",
			"prot.faa -> parquet/prot.esm2-tiny.parquet"} {
			if !strings.Contains(r.stdout, part) {
				t.Errorf("the summary does not mention %q:\n%s", part, r.stdout)
			}
		}
		if !strings.Contains(r.stderr, "carry no biology") || !strings.Contains(r.stderr, "no fake driver") {
			t.Errorf("the log says neither that weights are synthetic nor that no GPU is used:\n%s", r.stderr)
		}
	})
	t.Run("npy", func(t *testing.T) {
		embedTo(t, "npy")
		wantFiles(t, "npy", "manifest.jsonl", "nucl.dnabert-tiny.ids.txt", "nucl.dnabert-tiny.npy", "prot.esm2-tiny.ids.txt", "prot.esm2-tiny.npy")
		ids, rows := readNpy(t, "npy/prot.esm2-tiny.npy", "npy/prot.esm2-tiny.ids.txt")
		check(t, ids, proteinIDs, rows)
		ids, rows = readNpy(t, "npy/nucl.dnabert-tiny.npy", "npy/nucl.dnabert-tiny.ids.txt")
		check(t, ids, dnaIDs, rows)
	})
	t.Run("safetensors", func(t *testing.T) {
		embedTo(t, "safetensors")
		wantFiles(t, "safetensors", "manifest.jsonl", "nucl.dnabert-tiny.safetensors", "prot.esm2-tiny.safetensors")
		tensors, metadata := readSafetensors(t, "safetensors/prot.esm2-tiny.safetensors")
		var ids []string
		if err := json.Unmarshal([]byte(metadata["ids"]), &ids); err != nil {
			t.Fatal(err)
		}
		check(t, ids, proteinIDs, tensors["embeddings"])
		if metadata["model"] != tiny || metadata["pooling"] != "mean" {
			t.Errorf("metadata %q", metadata)
		}
	})
	t.Run("virnucpro", func(t *testing.T) {
		embedTo(t, "virnucpro")
		wantFiles(t, "virnucpro", "manifest.jsonl", "nucl_DNABERT_S.pt", "prot_ESM.pt")
		var ids []string
		var rows [][]float32
		object := readTorch(t, "virnucpro/prot_ESM.pt")
		for i, id := range *object["proteins"].(*[]any) {
			values, err := (*object["data"].(*[]any))[i].(*weights.Tensor).Float32s()
			if err != nil {
				t.Fatal(err)
			}
			ids, rows = append(ids, id.(string)), append(rows, values)
		}
		check(t, ids, proteinIDs, rows)
		ids, rows = nil, nil
		object = readTorch(t, "virnucpro/nucl_DNABERT_S.pt")
		for i, id := range *object["nucleotide"].(*[]any) {
			entry := (*object["data"].(*[]any))[i].(map[any]any)
			if entry["label"] != id {
				t.Errorf("label %q, id %q", entry["label"], id)
			}
			var row []float32
			for _, v := range *entry["mean_representation"].(*[]any) {
				row = append(row, float32(v.(float64)))
			}
			ids, rows = append(ids, id.(string)), append(rows, row)
		}
		check(t, ids, dnaIDs, rows)
	})
}

func TestLayers(t *testing.T) {
	workspace(t)
	write(t, "p.faa", proteinFile)
	type row struct {
		ID     string    `parquet:"id"`
		Layer0 []float32 `parquet:"embedding_0,list"`
		Layer2 []float32 `parquet:"embedding_2,list"`
		Layer3 []float32 `parquet:"embedding_3,list"`
	}
	embed(t, "--esm-model", tiny, "--layers", "0,2,-1", "-o", "out", "p.faa").wantCode(0)
	path := "out/p.esm2-tiny.parquet"
	rows := readParquet[row](t, path)
	if len(rows) != len(proteins) {
		t.Fatalf("%d rows", len(rows))
	}
	for i, r := range rows {
		want := reference(t, tiny, proteins[i].seq, transformer.Mean, 0, 2, 3)
		if r.ID != proteins[i].id || !slices.Equal(r.Layer0, want[0]) || !slices.Equal(r.Layer2, want[1]) || !slices.Equal(r.Layer3, want[2]) {
			t.Errorf("row %d differs", i)
		}
	}
	var columns []string
	for _, f := range parquetFile(t, path).Schema().Fields() {
		columns = append(columns, f.Name())
	}
	if want := []string{"id", "description", "length", "tokens", "truncated", "record_length", "embedding_0", "embedding_2", "embedding_3"}; !slices.Equal(columns, want) {
		t.Errorf("columns %q", columns)
	}

	// With --layers 0 fewer blocks of the model run. The embeddings of layer 0 must not change.
	embed(t, "--esm-model", tiny, "--layers", "0", "-o", "first", "p.faa").wantCode(0)
	for i, r := range readParquet[parquetRow](t, "first/p.esm2-tiny.parquet") {
		if !slices.Equal(r.Embedding, rows[i].Layer0) {
			t.Errorf("row %d of layer 0 alone differs", i)
		}
	}
}

func TestPooling(t *testing.T) {
	workspace(t)
	write(t, "p.faa", proteinFile)
	embed(t, "--esm-model", tiny, "--pool", "cls", "-o", "cls", "p.faa").wantCode(0)
	for i, r := range readParquet[parquetRow](t, "cls/p.esm2-tiny.parquet") {
		if want := reference(t, tiny, proteins[i].seq, transformer.CLS, 3)[0]; !slices.Equal(r.Embedding, want) {
			t.Errorf("cls: row %d differs", i)
		}
	}

	type token struct {
		ID        string    `parquet:"id"`
		Position  int64     `parquet:"position"`
		Embedding []float32 `parquet:"embedding,list"`
	}
	embed(t, "--esm-model", tiny, "--pool", "none", "-o", "none", "p.faa").wantCode(0)
	tokens := readParquet[token](t, "none/p.esm2-tiny.parquet")
	embed(t, "--esm-model", tiny, "--pool", "none", "--format", "safetensors", "-o", "none", "p.faa").wantCode(0)
	tensors, _ := readSafetensors(t, "none/p.esm2-tiny.safetensors")
	for _, p := range proteins {
		want := reference(t, tiny, p.seq, transformer.Tokens, 3)[0]
		var got []float32
		for position := range len(p.seq) + 2 {
			if len(tokens) == 0 || tokens[0].ID != p.id || tokens[0].Position != int64(position) {
				t.Fatalf("%s: token %d is missing", p.id, position)
			}
			got, tokens = append(got, tokens[0].Embedding...), tokens[1:]
		}
		if !slices.Equal(got, want) || !slices.Equal(slices.Concat(tensors[p.id]...), want) {
			t.Errorf("%s: the tokens' states differ", p.id)
		}
	}
	if len(tokens) != 0 {
		t.Errorf("%d rows too many", len(tokens))
	}
}

// TestFlagsAboutRecords checks the rows, counts and errors that the flags about lengths, windows, repeated ids and bad
// records cause.
func TestFlagsAboutRecords(t *testing.T) {
	workspace(t)
	write(t, "p.faa", proteinFile)
	write(t, "long.faa", ">l\n"+strings.Repeat("MKVLWA", 200)+"\n")
	write(t, "twice.faa", ">a\nMKV\n>b\nMKVL\n>a\nMKVLW\n")
	write(t, "bad.faa", ">a\nMKV\n>b\nM!V\n>c\n\n>d\nMKVLW\n")
	rows := func(name string, args ...string) ([]parquetRow, result) {
		t.Helper()
		r := embed(t, append(args, "--esm-model", tiny, "-o", "out", "--force", name+".faa")...).wantCode(0)
		return readParquet[parquetRow](t, "out/"+name+".esm2-tiny.parquet"), r
	}
	ids := func(list []parquetRow) string {
		var s []string
		for _, r := range list {
			s = append(s, r.ID)
		}
		return strings.Join(s, " ")
	}

	got, r := rows("long")
	if got[0].Length != 1022 || got[0].RecordLength != 1200 || !got[0].Truncated || !strings.Contains(r.stdout, "truncated 1 records") {
		t.Errorf("by default %d letters, truncated %v", got[0].Length, got[0].Truncated)
	}
	if got, _ = rows("long", "--max-length", "0"); got[0].Length != 1200 || got[0].Truncated {
		t.Errorf("--max-length 0: %d letters, truncated %v", got[0].Length, got[0].Truncated)
	}
	got, _ = rows("p", "--max-length", "18")
	if want := reference(t, tiny, proteins[2].seq[:18], transformer.Mean, 3)[0]; got[0].Truncated || !got[2].Truncated || !slices.Equal(got[2].Embedding, want) {
		t.Errorf("--max-length 18 is not the embedding of the first 18 letters")
	}

	got, r = rows("p", "--long", "window", "--max-length", "20")
	if last := got[2]; last.Length != int64(len(proteins[2].seq)) || last.Truncated || last.Tokens != int64(len(proteins[2].seq)+2*6) {
		t.Errorf("windows: %+v", last)
	}
	sums := make([]float64, len(got[2].Embedding))
	for piece := range slices.Chunk([]byte(proteins[2].seq), 20) {
		for c, v := range reference(t, tiny, string(piece), transformer.Mean, 3)[0] {
			sums[c] += float64(len(piece)) * float64(v)
		}
	}
	for c, v := range sums {
		if want := float32(v / float64(len(proteins[2].seq))); got[2].Embedding[c] != want {
			t.Fatalf("windows: value %d is %v, the mean over all tokens %v", c, got[2].Embedding[c], want)
		}
	}
	if got[2].RecordLength != int64(len(proteins[2].seq)) || !strings.Contains(r.stdout, "truncated 0 records") {
		t.Errorf("windows truncate nothing:\n%s", r.stdout)
	}

	if got, r = rows("p", "--min-length", "3"); ids(got) != "sp|P1|ONE three" || !strings.Contains(r.stdout, "skipped 1: too short") {
		t.Errorf("--min-length: %s\n%s", ids(got), r.stdout)
	}
	if got, _ = rows("twice", "--duplicates", "suffix"); ids(got) != "a b a_2" {
		t.Errorf("--duplicates suffix: %s", ids(got))
	}
	if got, r = rows("bad", "--on-bad-record", "skip"); ids(got) != "a d" || !strings.Contains(r.stdout, "skipped 2") ||
		!strings.Contains(r.stderr, "line=3") || !strings.Contains(r.stderr, "record=c") {
		t.Errorf("--on-bad-record skip: %s\n%s%s", ids(got), r.stdout, r.stderr)
	}

	r = embed(t, "--esm-model", tiny, "-o", "err", "--long", "error", "--max-length", "100", "p.faa").wantCode(exitNothing)
	r.wantProblem("p.faa:6", `"three"`, "113 letters", "allowed is 100", "--max-length", "--long")
	r = embed(t, "--esm-model", tiny, "-o", "err", "twice.faa").wantCode(exitNothing)
	r.wantProblem("twice.faa:5", `"a"`, "line 1", "--duplicates suffix")
	r = embed(t, "--esm-model", tiny, "-o", "err", "bad.faa").wantCode(exitNothing)
	r.wantProblem("bad.faa: 2 bad records", `line 3: record "b"`, `"!"`, `line 5: record "c": no sequence`, "--on-bad-record skip")
	wantFiles(t, "err", "failed_files.txt")
}

// TestFlagsAboutDNA checks that DNA from standard input is upper-cased and embedded, that --keep-case leaves lower-case
// letters unknown, that --protein embeds DNA letters as protein, and that --dnabert-tokenizer replaces the tokenizer.
func TestFlagsAboutDNA(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds under the race detector; other tests run the same goroutines")
	}
	workspace(t)
	const lower = ">x\ngattacagattaca\n"
	withStdin(t, lower)
	r := embed(t, "--dnabert-model", tinyDNA, "-o", "out", "--dna", "-").wantCode(0)
	wantFiles(t, "out", "manifest.jsonl", "stdin.dnabert-tiny.parquet")
	upper := readParquet[parquetRow](t, "out/stdin.dnabert-tiny.parquet")
	if want := reference(t, tinyDNA, "GATTACAGATTACA", transformer.Mean, 2)[0]; len(upper) != 1 || !slices.Equal(upper[0].Embedding, want) {
		t.Errorf("standard input: %+v", upper)
	}
	if !strings.Contains(r.stdout, "unknown letters 0.000%") {
		t.Errorf("upper-cased letters are known:\n%s", r.stdout)
	}

	// With --keep-case each lower-case letter is unknown.
	write(t, "x.fna", lower)
	r = embed(t, "--dnabert-model", tinyDNA, "-o", "kept", "--keep-case", "x.fna").wantCode(0)
	if kept := readParquet[parquetRow](t, "kept/x.dnabert-tiny.parquet"); kept[0].Tokens != 16 || !strings.Contains(r.stdout, "unknown letters 100.000%") {
		t.Errorf("--keep-case: %d tokens\n%s", kept[0].Tokens, r.stdout)
	}

	// With --protein a file is embedded as protein even if its letters look like DNA.
	embed(t, "--esm-model", tiny, "-o", "forced", "--protein", "x.fna").wantCode(0)
	wantFiles(t, "forced", "manifest.jsonl", "x.esm2-tiny.parquet")
	if rows := readParquet[parquetRow](t, "forced/x.esm2-tiny.parquet"); rows[0].Tokens != 16 {
		t.Errorf("--protein: %+v", rows[0])
	}

	// A byte-pair tokenizer without merges has a token for every letter.
	write(t, "letters.json", withoutMerges(t))
	embed(t, "--dnabert-model", tinyDNA, "--dnabert-tokenizer", "letters.json", "-o", "letters", "x.fna").wantCode(0)
	if rows := readParquet[parquetRow](t, "letters/x.dnabert-tiny.parquet"); rows[0].Tokens != 16 || upper[0].Tokens >= 16 {
		t.Errorf("--dnabert-tokenizer: %d tokens, with merges %d", rows[0].Tokens, upper[0].Tokens)
	}
}

func TestStandardInputIsDetected(t *testing.T) {
	workspace(t)
	withStdin(t, proteinFile)
	embed(t, "--esm-model", tiny, "-o", "out", "-").wantCode(0)
	wantFiles(t, "out", "manifest.jsonl", "stdin.esm2-tiny.parquet")
}

// TestBatchSizeAndThreads checks that the flags for batch size and threads do not change any result.
func TestBatchSizeAndThreads(t *testing.T) {
	workspace(t)
	write(t, "p.faa", proteinFile)
	var want []parquetRow
	for _, args := range []string{"--esm-batch-size 8192", "--esm-batch-size 24", "--esm-batch-size 1 --threads 1", "--threads 3"} {
		r := embed(t, append(strings.Fields(args), "-v", "--esm-model", tiny, "-o", "out", "--force", "p.faa")...).wantCode(0)
		rows := readParquet[parquetRow](t, "out/p.esm2-tiny.parquet")
		if want == nil {
			want = rows
		}
		for i := range rows {
			if !slices.Equal(rows[i].Embedding, want[i].Embedding) {
				t.Errorf("%s changes the embedding of %s", args, rows[i].ID)
			}
		}
		batches := strings.Count(r.stderr, "DEBUG batch")
		if expected := map[string]int{"--esm-batch-size 24": 2, "--esm-batch-size 1 --threads 1": 3}[args]; batches != max(expected, 1) {
			t.Errorf("%s: %d batches", args, batches)
		}
		manifest, err := os.ReadFile("out/manifest.jsonl")
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(args, "--threads 3") && !strings.Contains(string(manifest), `"cpu (3 threads)"`) {
			t.Errorf("%s: the manifest says\n%s", args, manifest)
		}
	}
}

// TestBF16OnCPU checks that --dtype bf16 changes the embeddings only a little on a CPU. The outputs and the manifest
// must name the type. The log must say if the CPU has no instructions for bfloat16. A rerun in float32 must not replace
// the outputs without --force.
func TestBF16OnCPU(t *testing.T) {
	workspace(t)
	write(t, "p.faa", proteinFile)
	args := []string{"--esm-model", tiny, "-o", "out", "p.faa"}
	dtype := "bf16"
	if !cpu.HasBF16() {
		dtype = "fp32, bf16 weights"
	}
	r := embedWith(t, []string{"EMBED_DTYPE=bf16"}, args...).wantCode(0)
	if said := strings.Contains(r.stderr, "has no instructions for bf16"); said == cpu.HasBF16() {
		t.Errorf("on a CPU that multiplies bf16 (%t) the log is:\n%s", cpu.HasBF16(), r.stderr)
	}
	path := "out/p.esm2-tiny.parquet"
	for i, r := range readParquet[parquetRow](t, path) {
		want := reference(t, tiny, proteins[i].seq, transformer.Mean, 3)[0]
		difference, size := 0.0, 0.0
		for c, w := range want {
			d := float64(r.Embedding[c]) - float64(w)
			difference, size = difference+d*d, size+float64(w)*float64(w)
		}
		// Rounding to bfloat16 changes a value by at most 2⁻⁸ of it. Most rounding errors cancel in sums, so the
		// relative error of an embedding after three layers must stay below 2⁻⁶.
		if relative := math.Sqrt(difference / size); !(relative > 0 && relative < 0x1p-6) {
			t.Errorf("%s: rounding changes the embedding by %.3g", r.ID, relative)
		}
	}
	if got, _ := parquetFile(t, path).Lookup("dtype"); got != dtype {
		t.Errorf("metadata dtype is %q", got)
	}
	manifest, err := os.ReadFile("out/manifest.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"dtype":"` + dtype + `"`, ` bf16`} {
		if !strings.Contains(string(manifest), part) {
			t.Errorf("the manifest does not say %s:\n%s", part, manifest)
		}
	}
	embed(t, args...).wantCode(exitNothing).wantProblem(path, dtype, "--force")
}

// TestSeedsAreModels checks that another seed of a synthetic model counts as another model: its outputs replace those
// of the first seed only with --force.
func TestSeedsAreModels(t *testing.T) {
	workspace(t)
	write(t, "p.faa", proteinFile)
	embed(t, "--esm-model", tiny, "-o", "out", "p.faa").wantCode(0)
	before := readParquet[parquetRow](t, "out/p.esm2-tiny.parquet")
	r := embed(t, "--esm-model", tiny+"@1", "-o", "out", "p.faa").wantCode(exitNothing)
	r.wantProblem("out/p.esm2-tiny.parquet", "--force")
	embed(t, "--esm-model", tiny+"@1", "-o", "out", "--force", "p.faa").wantCode(0)
	after := readParquet[parquetRow](t, "out/p.esm2-tiny.parquet")
	if slices.Equal(before[0].Embedding, after[0].Embedding) {
		t.Error("another seed gives the same embedding")
	}
}

// TestMessages checks that --quiet leaves errors only, that --verbose adds lines of level DEBUG, and that with
// --log-format json every line of standard error is a JSON object.
func TestMessages(t *testing.T) {
	workspace(t)
	write(t, "p.faa", proteinFile)
	write(t, "bad.faa", ">a\nM!V\n")
	run := func(args ...string) result {
		t.Helper()
		return embed(t, append(args, "--force", "--esm-model", tiny, "-o", "out", "p.faa", "bad.faa")...).wantCode(exitSome)
	}
	quiet := run("-q")
	if n := strings.Count(quiet.stderr, "\n"); n != 1 || quiet.stdout != "" {
		t.Errorf("--quiet writes %q and %q", quiet.stdout, quiet.stderr)
	}
	quiet.wantProblem("bad.faa")
	usual, verbose := run("--no-progress"), run("-v")
	if strings.Contains(usual.stderr, " DEBUG ") || !strings.Contains(verbose.stderr, " DEBUG ") {
		t.Errorf("--verbose adds nothing:\n%s", verbose.stderr)
	}

	jsonLines := func(r result) (levels map[string]int) {
		t.Helper()
		levels = make(map[string]int)
		for line := range strings.Lines(r.stderr) {
			var entry struct{ Time, Level, Msg string }
			if err := json.Unmarshal([]byte(line), &entry); err != nil || entry.Msg == "" || entry.Time == "" {
				t.Errorf("not a line of JSON: %q: %v", line, err)
			}
			levels[entry.Level]++
		}
		return levels
	}
	levels := jsonLines(run("-v", "--log-format", "json"))
	if want := slices.Collect(maps.Keys(map[string]int{"DEBUG": 0, "INFO": 0, "WARN": 0, "ERROR": 0})); len(levels) != len(want) || levels["ERROR"] != 1 {
		t.Errorf("levels %v", levels)
	}
	// The last line of a failed run is JSON, too.
	r := embed(t, "--log-format", "json", "--esm-model", "synthetic:none", "-o", "out", "p.faa").wantCode(exitNothing)
	if levels := jsonLines(r); levels["ERROR"] != 1 {
		t.Errorf("levels %v", levels)
	}
}
