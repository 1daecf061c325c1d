package main

import (
	"archive/zip"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// The tests in this file cover unusual inputs that the program must embed correctly.

// TestHugeHeadersAndNames checks that an id of 300 kB and a description of 700 kB are kept, that a file name of 249
// letters is accepted, and that a header of more than 1 MiB is refused.
func TestHugeHeadersAndNames(t *testing.T) {
	workspace(t)
	id, description := strings.Repeat("i", 300_000), strings.Repeat("d ", 350_000)+"d"
	name := strings.Repeat("n", 245)
	write(t, name+".faa", ">"+id+" "+description+"\nMKV\n>b\nMKVL\n")
	write(t, "long.faa", ">a\nMKV\n>"+strings.Repeat("x", 1<<20)+"\nMKV\n")
	embed(t, "--esm-model", tiny, "-o", "out", name+".faa").wantCode(0)
	list := slices.DeleteFunc(files(t, "out"), func(name string) bool { return name == "manifest.jsonl" })
	if len(list) != 1 || !strings.HasPrefix(list[0], name[:100]) {
		t.Fatalf("outputs %q", list)
	}
	rows := readParquet[parquetRow](t, "out/"+list[0])
	if len(rows) != 2 || rows[0].ID != id || rows[0].Description != description || rows[1].ID != "b" {
		t.Errorf("%d rows, an id of %d letters", len(rows), len(rows[0].ID))
	}
	embed(t, "--esm-model", tiny, "-o", "refused", "long.faa").wantCode(exitNothing).wantProblem("long.faa:3", "header line is longer than 1048576 bytes")
}

// TestSequenceAloneAndAmongOthers checks that a sequence has bit for bit the same embedding alone in a file and twice
// among other sequences.
func TestSequenceAloneAndAmongOthers(t *testing.T) {
	workspace(t)
	var others strings.Builder
	for i := range 20 {
		fmt.Fprintf(&others, ">o%d\nMKVLAAGWQE%s\n", i, strings.Repeat("FDSTIKN", i))
	}
	const seq = "MNIFEMLRIDEGLRLKIYKDTEGYYTIGIGHLLTKSPSLNAAK"
	write(t, "alone.faa", ">x\n"+seq+"\n")
	write(t, "among.faa", ">x\n"+seq+"\n"+others.String()+">y\n"+seq+"\n")
	embed(t, "--esm-model", tiny, "--esm-batch-size", "300", "-o", "out", "alone.faa", "among.faa").wantCode(0)
	alone, among := readParquet[parquetRow](t, "out/alone.esm2-tiny.parquet"), readParquet[parquetRow](t, "out/among.esm2-tiny.parquet")
	if len(among) != 22 || !slices.Equal(alone[0].Embedding, among[0].Embedding) || !slices.Equal(alone[0].Embedding, among[21].Embedding) {
		t.Errorf("%d rows, or other bits", len(among))
	}
}

// TestNamesOfFiles checks that files are embedded whose names have spaces, quotation marks, other scripts or a dash at
// the beginning, and that the outputs keep these names, with %25 for a percent sign.
func TestNamesOfFiles(t *testing.T) {
	workspace(t)
	names := []string{"-v.faa", "a b.faa", "it's.faa", "Белок.faa", "x;y&z.faa", "p%20q.faa"}
	var want []string
	for _, name := range names {
		write(t, name, ">a\nMKV\n")
		want = append(want, strings.ReplaceAll(strings.TrimSuffix(name, ".faa"), "%", "%25")+".esm2-tiny.parquet")
	}
	embed(t, append([]string{"--esm-model", tiny, "-o", "out", "--"}, names...)...).wantCode(0)
	wantFiles(t, "out", append(want, "manifest.jsonl")...)
}

// TestNpzEntriesAreNoPaths checks that an id that looks like a path, such as ../etc/passwd, is escaped in the names of
// the entries of an .npz file, so that unpacking the file writes nothing outside the folder.
func TestNpzEntriesAreNoPaths(t *testing.T) {
	input := fieldFile(t, "odd_headers.faa")
	workspace(t)
	embed(t, "--esm-model", tiny, "--format", "npy", "--pool", "none", "-o", "out", input).wantCode(0)
	archive, err := zip.OpenReader("out/odd_headers.esm2-tiny.npz")
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	var escaped bool
	for _, f := range archive.File {
		if strings.ContainsAny(f.Name, "/\\") || strings.HasPrefix(f.Name, ".") {
			t.Errorf("an entry %q", f.Name)
		}
		escaped = escaped || f.Name == "%2E.%2F..%2Fetc%2Fpasswd.npy"
	}
	ids, err := os.ReadFile("out/odd_headers.esm2-tiny.ids.txt")
	if err != nil || len(archive.File) != 10 || !escaped || strings.Count(string(ids), "\n") != 10 {
		t.Errorf("%d entries, escaped %v, ids %q, %v", len(archive.File), escaped, ids, err)
	}
}
