package main

import (
	"testing"

	"seqembed/tokenizer"
)

// TestFoldersAndGlobs checks that outputs keep the tree of a folder, and that the default output folder is embeddings.
func TestFoldersAndGlobs(t *testing.T) {
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
	r := embed(t, "--esm-model", tiny, "-o", "twins", "in/a.faa", "in/deep/a.faa").wantCode(exitNothing)
	r.wantProblem("in/a.faa", "in/deep/a.faa")
	wantFiles(t, "twins")

	// A genome and its proteins often have the same name. Their outputs then have different names, unless both models
	// have the same label.
	write(t, "pair/s.fna", ">a\nACGTTGCAAC\n")
	write(t, "pair/s.faa", ">a\nMKV\n")
	embed(t, "--dnabert-model", dna2, "--esm-model", tiny, "-o", "pairs", "pair").wantCode(0)
	wantFiles(t, "pairs", "manifest.jsonl", "s.dnabert-s-2l.parquet", "s.esm2-tiny.parquet")
	writeCheckpoint(t, "x/model", dna2, nil)
	writeCheckpoint(t, "y/model", tiny, nil)
	r = embed(t, "--dnabert-model", "x/model", "--dnabert-tokenizer", write(t, "tokenizer.json", string(tokenizer.SyntheticDNAFile())), "--esm-model", "y/model", "-o", "same", "pair").wantCode(exitNothing)
	r.wantProblem("pair/s.faa", "pair/s.fna")
	wantFiles(t, "same")
}
