package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"seqembed/tokenizer"
)

// TestFoldersAndGlobs checks the names of outputs for folders and globs. Outputs must keep the tree of a folder, and
// the default output folder must have the name "embeddings".
func TestFoldersAndGlobs(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds under the race detector; other tests run the same goroutines")
	}
	workspace(t)
	write(t, "in/a.faa", ">a\nMKV\n")
	write(t, "in/deep/a.faa", ">a\nMKVL\n")
	write(t, "in/notes.txt", "no sequences")
	embed(t, "--esm-model", tiny, "in").wantCode(0)
	wantFiles(t, "embeddings", "a.esm2-tiny.parquet", "deep/a.esm2-tiny.parquet", "manifest.jsonl")
	write(t, "g1.faa", ">a\nMKV\n")
	write(t, "g2.faa", ">a\nMKV\n")
	embed(t, "--esm-model", tiny, "-o", "glob", "g?.faa").wantCode(0)
	wantFiles(t, "glob", "g1.esm2-tiny.parquet", "g2.esm2-tiny.parquet", "manifest.jsonl")
	embed(t, "--esm-model", tiny, "-o", "twins", "in/a.faa", "in/deep/a.faa").wantCode(0)
	wantFiles(t, "twins", "a.esm2-tiny.parquet", "deep/a.esm2-tiny.parquet", "manifest.jsonl")

	// The files of a genome and of its proteins often have the same name up to the extension. The name of the model
	// tells their outputs apart, unless both models have the same name.
	write(t, "pair/s.fna", ">a\nACGTTGCAAC\n")
	write(t, "pair/s.faa", ">a\nMKV\n")
	embed(t, "--dnabert-model", tinyDNA, "--esm-model", tiny, "-o", "pairs", "pair").wantCode(0)
	wantFiles(t, "pairs", "manifest.jsonl", "s.dnabert-tiny.parquet", "s.esm2-tiny.parquet")
	writeCheckpoint(t, "x/model", tinyDNA, nil)
	writeCheckpoint(t, "y/model", tiny, nil)
	r := embed(t, "--dnabert-model", "x/model", "--dnabert-tokenizer", write(t, "tokenizer.json", string(tokenizer.SyntheticDNAFile())), "--esm-model", "y/model", "-o", "same", "pair").wantCode(exitNothing)
	r.wantProblem("pair/s.faa", "pair/s.fna", "--out")
	wantFiles(t, "same")
}

// TestNamesThatAreTheSame checks inputs of the same file name. Their outputs must get different paths, which keep the
// folders that distinguish the inputs. A rerun with fewer or more inputs must find the existing outputs.
func TestNamesThatAreTheSame(t *testing.T) {
	workspace(t)
	for i, name := range []string{"S1", "S2", "S3"} {
		write(t, "run/"+name+"/megahit/final.contigs.fa", fmt.Sprintf(">%s\nACGTTGCAAC%s\n", name, strings.Repeat("A", i)))
	}
	run := func(inputs ...string) result {
		t.Helper()
		return embed(t, append([]string{"--dnabert-model", tinyDNA, "--esm-model", tiny, "-o", "out"}, inputs...)...).wantCode(0)
	}
	complete := func(r result, n int) {
		t.Helper()
		if got := strings.Count(r.stdout, "was complete already"); got != n {
			t.Errorf("%d outputs were complete, want %d:\n%s", got, n, r.stdout)
		}
	}
	const s1, s2, s3 = "run/S1/megahit/final.contigs.fa", "run/S2/megahit/final.contigs.fa", "run/S3/megahit/final.contigs.fa"
	outputs := []string{"S1/final.contigs.dnabert-tiny.parquet", "S2/final.contigs.dnabert-tiny.parquet", "manifest.jsonl"}
	run(s1, s2)
	wantFiles(t, "out", outputs...)
	for _, id := range []string{"S1", "S2"} {
		if got := rowsOf(t, "out/"+id+"/final.contigs.dnabert-tiny.parquet"); !strings.HasPrefix(got[0], id) {
			t.Errorf("%s holds %q", id, got)
		}
	}
	complete(run(s2), 1) // in a new output folder the output would be final.contigs.dnabert-tiny.parquet
	complete(run(s1, s2, s3), 2)
	outputs = append(outputs, "S3/final.contigs.dnabert-tiny.parquet")
	wantFiles(t, "out", outputs...)
	if err := os.Rename("run", "moved"); err != nil {
		t.Fatal(err)
	}
	complete(run("moved/S3/megahit/final.contigs.fa", "./moved/S1/../S1/megahit/final.contigs.fa"), 2)

	// If two input folders have files of the same names, the paths of their outputs keep the part that distinguishes
	// the folders: p and q.
	write(t, "p/d/s/p.faa", ">p\nMKV\n")
	write(t, "q/d/s/p.faa", ">q\nMKVL\n")
	run("p/d", "q/d")
	trees := []string{"p/s/p.esm2-tiny.parquet", "q/s/p.esm2-tiny.parquet"}
	for _, rerun := range [][]string{{"p/d"}, {"q/d"}, {"q/d/s"}, {"p/d/s/p.faa"}} {
		complete(run(rerun...), 1)
	}
	wantFiles(t, "out", append(trees, outputs...)...)
	outputs = append(outputs, trees...)

	// An output keeps its path if a later run also gets another input of the same name.
	write(t, "x/p.faa", ">x\nMKV\n")
	write(t, "y/p.faa", ">y\nMKVL\n")
	run("x/p.faa")
	complete(run("x/p.faa", "y/p.faa"), 1)
	wantFiles(t, "out", append(outputs, "p.esm2-tiny.parquet", "y/p.esm2-tiny.parquet")...)
	complete(run("y/p.faa"), 1) // although p.esm2-tiny.parquet, of another input, has the name that this run would choose
	complete(run("x/p.faa"), 1)
	if err := errors.Join(os.Rename("x", "x2"), os.Rename("y", "y2")); err != nil { // content and name tell the inputs
		t.Fatal(err)
	}
	complete(run("x2/p.faa"), 1)
	if err := errors.Join(os.Rename("x2", "x"), os.Rename("y2", "y")); err != nil {
		t.Fatal(err)
	}
	embed(t, "--esm-model", tiny, "-o", "alone", "x/p.faa").wantCode(0)
	r := embed(t, "--esm-model", tiny, "-o", "alone", "y/p.faa").wantCode(exitNothing)
	r.wantProblem("alone/p.esm2-tiny.parquet was made from x/p.faa, not from y/p.faa", "--out")
}

// TestProkkaFolder checks that all outputs for the files of Prokka, which annotates genomes, get different paths.
// Prokka gives all files of an annotation the same name with different extensions, and uses the same name for all
// annotations of a day.
func TestProkkaFolder(t *testing.T) {
	workspace(t)
	const dna = ">c\nACGTTGCAACGGATTACAGT\n"
	for _, sample := range []string{"a", "b"} {
		for _, ext := range []string{"faa", "ffn", "fna", "fsa", "gff", "tsv"} {
			content := dna
			if ext == "faa" {
				content = ">p\nMKVLAAGWQEFDSTIKN\n"
			}
			write(t, sample+"/PROKKA_01022024."+ext, content)
		}
	}
	embed(t, "--dnabert-model", tinyDNA, "--esm-model", tiny, "-o", "one", "a").wantCode(0)
	const d = ".dnabert-tiny.parquet"
	wantFiles(t, "one", "PROKKA_01022024.esm2-tiny.parquet", "PROKKA_01022024.ffn"+d, "PROKKA_01022024.fna"+d, "PROKKA_01022024.fsa"+d, "manifest.jsonl")
	embed(t, "--esm-model", tiny, "-o", "two", "*/PROKKA_*.faa").wantCode(0)
	wantFiles(t, "two", "a/PROKKA_01022024.esm2-tiny.parquet", "b/PROKKA_01022024.esm2-tiny.parquet", "manifest.jsonl")
	embed(t, "--dnabert-model", tinyDNA, "--esm-model", tiny, "-o", "both", "a", "b").wantCode(0)
	wantFiles(t, "both", "a/PROKKA_01022024.esm2-tiny.parquet", "a/PROKKA_01022024.ffn"+d, "a/PROKKA_01022024.fna"+d, "a/PROKKA_01022024.fsa"+d,
		"b/PROKKA_01022024.esm2-tiny.parquet", "b/PROKKA_01022024.ffn"+d, "b/PROKKA_01022024.fna"+d, "b/PROKKA_01022024.fsa"+d, "manifest.jsonl")
}
