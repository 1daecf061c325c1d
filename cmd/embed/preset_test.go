package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"seqembed/internal/store"
	"seqembed/weights"
)

// contigs are two DNA records for --preset virnucpro.
const contigs = ">s1 a description\n" +
	"ATGGCTAGCAAAGGTAAACGTATTGCAGAACTGAAAGAAGCGATTGAAAAACGTGCAGAACTGGCAGAAGCGATTAAAAAAGCGGCGGAAGCGATGGCGGCGAAATAA\n" +
	">s2\nATGAAACGTGCAGAACTGGCAGAAGCGATTAAAAAAGCGGCGGAAGCGATGGCG\n"

// withSmallPreset runs the program with --preset virnucpro, and with small models in place of those that VirNucPro
// needs.
func withSmallPreset(t *testing.T, args ...string) result {
	t.Helper()
	m := noGPU
	m.virNucPro.models = map[string]string{"dnabert-model": "dnabert-tiny", "esm-model": "esm2-tiny"}
	var stdout, stderr strings.Builder
	args = append([]string{"--preset", "virnucpro", "--dnabert-model", tinyDNA, "--esm-model", tiny, "-o", "out"}, args...)
	code := runOn(t.Context(), m, args, nil, &stdout, &stderr)
	return result{t, code, stdout.String(), stderr.String()}
}

// read returns the content of a file.
func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// TestPresetSkips checks that records which the preset skips are logged and counted, also by a dry run.
func TestPresetSkips(t *testing.T) {
	workspace(t)
	write(t, "a.fna", contigs+">bad\nACGTEFACGTACGTACGT\n>short\nACG\n")
	args := []string{"--on-bad-record", "skip", "--min-length", "10", "a.fna"}
	if r := withSmallPreset(t, append([]string{"--dry-run"}, args...)...).wantCode(exitDone); !strings.Contains(r.stdout, "2 skipped") {
		t.Errorf("the dry run says\n%s", r.stdout)
	}
	r := withSmallPreset(t, args...).wantCode(exitDone)
	if !strings.Contains(r.stdout, ", skipped 2,") || strings.Count(r.stderr, "record skipped") != 2 {
		t.Errorf("the run says\n%s%s", r.stdout, r.stderr)
	}
}

// TestPreset checks that the merged file of --preset virnucpro has the embeddings that another run computes of the
// preset's FASTA files. A rerun must change nothing. After files were removed or damaged, a rerun must make them again.
func TestPreset(t *testing.T) {
	workspace(t)
	write(t, "a.fna", contigs)
	withSmallPreset(t, "a.fna").wantCode(exitDone)
	all := []string{"a_DNABERT_S.pt", "a_ESM.pt", "a_chunked500.fa", "a_identified_nucleotide.fa", "a_identified_protein.faa",
		"a_merged.pt", "manifest.jsonl"}
	wantFiles(t, "out", all...)
	embed(t, "--dnabert-model", tinyDNA, "--esm-model", tiny, "--format", "virnucpro", "-o", "apart", "--dna=out/a_identified_nucleotide.fa",
		"--protein=out/a_identified_protein.faa").wantCode(exitDone)

	merged, dna, protein := readTorch(t, "out/a_merged.pt"), readTorch(t, "apart/a_identified_nucleotide_DNABERT_S.pt"), readTorch(t, "apart/a_identified_protein_ESM.pt")
	ids := *merged["ids"].(*[]any)
	if !slices.Equal(ids, *dna["nucleotide"].(*[]any)) || !slices.Equal(ids, *protein["proteins"].(*[]any)) || len(ids) < 4 || ids[0] != "s1_chunk_1R1" {
		t.Fatalf("the merged file has the ids %v", ids)
	}
	data := merged["data"].(*weights.Tensor)
	values, err := data.Float32s()
	if err != nil {
		t.Fatal(err)
	}
	width := data.Shape()[1]
	for i := range ids {
		want := []float32{}
		for _, v := range *(*dna["data"].(*[]any))[i].(map[any]any)["mean_representation"].(*[]any) {
			want = append(want, float32(v.(float64)))
		}
		more, err := (*protein["data"].(*[]any))[i].(*weights.Tensor).Float32s()
		if err != nil {
			t.Fatal(err)
		}
		if want = append(want, more...); !slices.Equal(values[i*width:(i+1)*width], want) {
			t.Errorf("%v: the merged row is not the DNA's followed by the protein's", ids[i])
		}
	}

	embed(t, "inspect", "out").wantCode(exitDone)
	before, manifest := contents(t, "out"), read(t, "out/manifest.jsonl")
	withSmallPreset(t, "a.fna").wantCode(exitDone)
	if !maps.Equal(before, contents(t, "out")) || manifest != read(t, "out/manifest.jsonl") {
		t.Error("a rerun has changed the folder")
	}
	lines := strings.SplitAfter(manifest, "\n")
	// The manifest loses its first line, which is the entry of the FASTA files. A rerun must add the entry again.
	write(t, "out/manifest.jsonl", strings.Join(lines[1:], ""))
	withSmallPreset(t, "a.fna").wantCode(exitDone)
	if r := embed(t, "inspect", "out").wantCode(exitDone); r.stdout != "6 complete\n" {
		t.Errorf("after a line was lost: %s", r.stdout)
	}
	isMerge := func(line string) bool { return strings.Contains(line, "_merged.pt") }
	first := slices.IndexFunc(lines, isMerge)
	// A run that is killed while it merges has added only the first of the two entries of the merged file.
	write(t, "out/manifest.jsonl", strings.Join(slices.DeleteFunc(slices.Clone(lines), isMerge), "")+lines[first])
	withSmallPreset(t, "a.fna").wantCode(exitDone)
	for i, name := range all[:len(all)-1] {
		if i%2 == 0 {
			write(t, "out/"+name, "damaged")
		} else if err := os.Remove("out/" + name); err != nil {
			t.Fatal(err)
		}
		withSmallPreset(t, "a.fna").wantCode(exitDone)
		if !maps.Equal(before, contents(t, "out")) {
			t.Errorf("%s was damaged or removed, and a rerun makes another", name)
		}
	}
}

// TestPresetKilledAtRename checks that a rerun completes a run of the preset that was killed after only one of its
// FASTA files had got the final name. A FASTA file with other content must not be replaced without --force.
func TestPresetKilledAtRename(t *testing.T) {
	workspace(t)
	write(t, "a.fna", contigs)
	withSmallPreset(t, "a.fna").wantCode(exitDone)
	protein := read(t, "out/a_identified_protein.faa")
	if err := os.RemoveAll("out"); err != nil {
		t.Fatal(err)
	}
	write(t, "out/a_identified_protein.faa", protein)
	withSmallPreset(t, "a.fna").wantCode(exitDone)
	write(t, "out/manifest.jsonl", "")
	write(t, "out/a_identified_nucleotide.fa", ">other\nACG\n")
	withSmallPreset(t, "a.fna").wantCode(exitNothing).wantProblem("out/a_", "--force")
}

// TestPresetTwice checks that three runs of the preset at once, on one input in one folder, all succeed and leave six
// complete files.
func TestPresetTwice(t *testing.T) {
	workspace(t)
	write(t, "a.fna", contigs)
	m := noGPU
	m.virNucPro.models = map[string]string{"dnabert-model": "dnabert-tiny", "esm-model": "esm2-tiny"}
	var runs sync.WaitGroup
	for range 3 {
		runs.Go(func() {
			var stdout, stderr strings.Builder
			args := []string{"--preset", "virnucpro", "--dnabert-model", tinyDNA, "--esm-model", tiny, "-o", "out", "a.fna"}
			if code := runOn(t.Context(), m, args, nil, &stdout, &stderr); code != exitDone {
				t.Errorf("exit code %d: %s", code, stderr.String())
			}
		})
	}
	runs.Wait()
	if r := embed(t, "inspect", "out").wantCode(exitDone); r.stdout != "6 complete\n" {
		t.Error(r.stdout)
	}
}

// TestPresetInUse checks that --preset with --force changes no file while another run with other settings is making
// the same outputs.
func TestPresetInUse(t *testing.T) {
	workspace(t)
	write(t, "a.fna", contigs)
	withSmallPreset(t, "a.fna").wantCode(exitDone)
	before := contents(t, "out")
	other := store.ThisProcess("another run")
	other.Outputs = map[string]store.Entry{"DNABERT_S.virnucpro": {Model: "another model"}}
	release, err := store.Claim("out", other, func(store.Holder) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	withSmallPreset(t, "--force", "--expected-length", "300", "a.fna").wantCode(exitNothing).wantProblem("in use", "another run")
	release()
	if !maps.Equal(before, contents(t, "out")) {
		t.Errorf("the folder has changed, and holds %q", files(t, "out"))
	}
	withSmallPreset(t, "--force", "--expected-length", "300", "a.fna").wantCode(exitDone)
	wantFiles(t, "out", "a_DNABERT_S.pt", "a_ESM.pt", "a_chunked300.fa", "a_chunked500.fa", "a_identified_nucleotide.fa", "a_identified_protein.faa",
		"a_merged.pt", "manifest.jsonl")
}

// TestPresetInOutputFolder checks that a rerun with the output folder as input does not translate the FASTA files that
// the first run made.
func TestPresetInOutputFolder(t *testing.T) {
	workspace(t)
	write(t, "out/a.fna", contigs)
	withSmallPreset(t, "out").wantCode(exitDone)
	before := files(t, "out")
	if r := withSmallPreset(t, "out").wantCode(exitDone); !strings.Contains(r.stderr, "a_chunked500.fa") || !slices.Equal(before, files(t, "out")) {
		t.Errorf("the folder holds %q, and held %q; the log says %s", files(t, "out"), before, r.stderr)
	}
	if err := os.Remove("out/a.fna"); err != nil {
		t.Fatal(err)
	}
	withSmallPreset(t, "out").wantCode(exitNothing).wantProblem("the preset has made")
}

// TestPresetPublished checks that the FASTA files of the preset are, byte for byte, those that VirNucPro has written
// for the same input, and that the merged file has the ids of VirNucPro's merged file.
func TestPresetPublished(t *testing.T) {
	folder, err := filepath.Abs("../../../shared/goldens/published/virnucpro")
	if err != nil {
		t.Fatal(err)
	}
	input := filepath.Join(folder, "test_with_orfs.fa")
	if _, err := os.Stat(input); err != nil {
		t.Skip("../shared/goldens/published/virnucpro does not exist")
	}
	workspace(t)
	withSmallPreset(t, input).wantCode(exitDone)
	for _, name := range []string{"chunked500.fa", "identified_nucleotide.fa", "identified_protein.faa"} {
		if got := read(t, "out/test_with_orfs_"+name); got != read(t, filepath.Join(folder, "test_with_orfs_"+name)) {
			t.Errorf("%s is not the published one:\n%s", name, got)
		}
	}
	published := readTorch(t, filepath.Join(folder, "output_1_merged.pt"))
	if got, want := *readTorch(t, "out/test_with_orfs_merged.pt")["ids"].(*[]any), *published["ids"].(*[]any); !slices.Equal(got, want) {
		t.Errorf("the ids are %v, published %v", got, want)
	}
}

// TestPresetRefuses checks that the preset refuses models whose embeddings VirNucPro cannot read, flags that the preset
// decides, wrong inputs, and a folder with outputs of other settings.
func TestPresetRefuses(t *testing.T) {
	workspace(t)
	write(t, "a.fna", contigs)
	write(t, "p.faa", proteinFile)
	for args, says := range map[string][]string{
		"--preset virnucpro --dnabert-model synthetic:dnabert-s-2l --esm-model synthetic:esm2-3b a.fna":          {"dnabert-s", "12", "768"},
		"--preset virnucpro --dnabert-model synthetic:dnabert-2 --esm-model synthetic:esm2-3b a.fna":             {"dnabert-s"},
		"--preset virnucpro --dnabert-model synthetic:dnabert-s --esm-model synthetic:esm2-650m --offline a.fna": {"--esm-model", "esm2-3b", "36", "2560", "1280"},
	} {
		embed(t, strings.Fields(args)...).wantCode(exitNothing).wantProblem(says...)
	}
	for args, says := range map[string][]string{
		"--preset other a.fna":                         {"other", "virnucpro"},
		"--expected-length 300 a.fna":                  {"--preset"},
		"--preset virnucpro --expected-length 7 a.fna": {"300 or 500"},
		"--preset virnucpro --format npy a.fna":        {"--format"},
		"--preset virnucpro --protein p.faa":           {"--protein"},
		"--preset virnucpro --keep-case a.fna":         {"--keep-case"},
		"--preset virnucpro --repr_layers 1 a.fna":     {"--repr_layers"},
		"--preset virnucpro --include bos mean a.fna":  {"--include"},

		"--preset virnucpro --truncation_seq_length 9 a.fna": {"--truncation_seq_length"},
	} {
		embed(t, strings.Fields(args)...).wantCode(exitUsage).wantProblem(says...)
	}
	if _, err := os.Stat("embeddings"); err == nil {
		t.Error("a refused run has made a folder")
	}

	withSmallPreset(t, "p.faa").wantCode(exitNothing).wantProblem("p.faa", "DNA")
	write(t, "stops.fna", ">s\nTAATAATAATAACTAACTAACTTAATTAATTAACTA\n")
	withSmallPreset(t, "stops.fna", "a.fna").wantCode(exitSome).wantProblem("stops.fna", "stop")
	if got := files(t, "out"); slices.Contains(got, "stops_chunked500.fa") || !slices.Contains(got, "a_merged.pt") {
		t.Errorf("the folder holds %q", got)
	}
	for _, args := range [][]string{{"--expected-length", "300", "a.fna"}, {"--min-length", "60", "a.fna"}} {
		withSmallPreset(t, args...).wantCode(exitNothing).wantProblem("out/a_", "--force")
	}
	write(t, "out/manifest.jsonl", "damaged\n"+read(t, "out/manifest.jsonl"))
	withSmallPreset(t, "a.fna").wantCode(exitNothing).wantProblem("out/manifest.jsonl:1", "--force")
	withSmallPreset(t, "--min-length", "60", "--force", "a.fna").wantCode(exitDone)
	write(t, "a.fna", contigs+">s3\nATGATG\n")
	withSmallPreset(t, "--min-length", "4", "a.fna").wantCode(exitNothing).wantProblem("out/a_", "--force")
}

// TestPresetNames checks that the preset gives different names to the outputs of standard input and of two inputs of
// the same name.
func TestPresetNames(t *testing.T) {
	workspace(t)
	write(t, "x/a.fna", contigs)
	write(t, "y/a.fna", contigs)
	withStdin(t, contigs)
	withSmallPreset(t, "x/a.fna", "y/a.fna", "-").wantCode(exitDone)
	if got := files(t, "out"); len(got) != 19 || !slices.Contains(got, "x/a_merged.pt") || !slices.Contains(got, "y/a_identified_protein.faa") ||
		!slices.Contains(got, "stdin_merged.pt") {
		t.Errorf("the folder holds %q", got)
	}
	withStdin(t, contigs)
	withSmallPreset(t, "-").wantCode(exitNothing).wantProblem("out/stdin_chunked500.fa", "--force")
}

// TestPresetDryRun checks that a dry run of the preset prints the numbers of chunks, frames and tokens that a run has,
// and estimates the size of the outputs within a quarter. It must write nothing.
func TestPresetDryRun(t *testing.T) {
	workspace(t)
	var more strings.Builder
	more.WriteString(contigs)
	for i := range 4 {
		fmt.Fprintf(&more, ">more%d\n%s\n", i, strings.Repeat("ATGGCTAGCAAAGGTAAACGT", 24+i))
	}
	write(t, "a.fna", more.String())
	write(t, "p.faa", ">p\nMKVLLEEFF\n")
	r := withSmallPreset(t, "--dry-run", "a.fna", "p.faa").wantCode(exitSome)
	r.wantProblem("p.faa", "--preset translates DNA")
	if _, err := os.Stat("out"); err == nil {
		t.Fatal("a dry run has made a folder")
	}
	withSmallPreset(t, "a.fna").wantCode(exitDone)
	headers := func(path string) int64 { return int64(strings.Count(read(t, path), ">")) }
	var size float64
	for _, name := range files(t, "out") {
		if info, err := os.Stat(filepath.Join("out", name)); err != nil {
			t.Fatal(err)
		} else if name != "manifest.jsonl" && name != "report.json" {
			size += float64(info.Size())
		}
	}
	manifest, err := store.ReadManifest("out")
	if err != nil {
		t.Fatal(err)
	}
	dna, _, _ := manifest.Find("out/a_DNABERT_S.pt")
	protein, _, _ := manifest.Find("out/a_ESM.pt")
	want := fmt.Sprintf("a.fna: 6 records, %s chunks, %s frames, %s tokens of DNA and %s of proteins -> out/a_merged.pt and 5 other files, about ",
		grouped(headers("out/a_chunked500.fa")), grouped(headers("out/a_identified_nucleotide.fa")), grouped(dna.Tokens), grouped(protein.Tokens))
	wantLines(r, want, "to do: 1 inputs; complete already: 0 inputs", "the time is not known")
	_, text, _ := strings.Cut(r.stdout, "other files, about ")
	var estimate float64
	var unit string
	if _, err := fmt.Sscan(text, &estimate, &unit); err != nil {
		t.Fatal(err)
	}
	if ratio := estimate * map[string]float64{"kB": 1e3, "MB": 1e6}[unit] / size; ratio < 0.75 || ratio > 1.25 {
		t.Errorf("the estimate is %v %s, and the files have %v bytes", estimate, unit, size)
	}
	before := contents(t, "out")
	wantLines(withSmallPreset(t, "--dry-run", "a.fna").wantCode(exitDone), "complete already\n", "to do: 0 inputs; complete already: 1 inputs")
	wantLines(withSmallPreset(t, "--dry-run", "--force", "a.fna").wantCode(exitDone), "to do: 1 inputs", "tokens/s of earlier runs in out")
	if !maps.Equal(before, contents(t, "out")) {
		t.Error("a dry run has changed the folder")
	}
	write(t, "a.fna", contigs)
	withSmallPreset(t, "--dry-run", "a.fna").wantCode(exitNothing).wantProblem("is not the translation of a.fna")
	withStdin(t, contigs)
	wantLines(withSmallPreset(t, "--dry-run", "--dna", "-").wantCode(exitDone), "only once -> out/stdin_merged.pt")
}
