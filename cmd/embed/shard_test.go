package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"seqembed/internal/store"
)

// sameFolders fails the test unless two folders have the same files with the same bytes. It ignores reports, and does
// not compare the contents of manifests.
func sameFolders(t *testing.T, a, b string) {
	t.Helper()
	wantFiles(t, b, files(t, a)...)
	for _, name := range files(t, a) {
		if name == store.ManifestName {
			continue
		}
		x, err := os.ReadFile(filepath.Join(a, name))
		if err != nil {
			t.Fatal(err)
		}
		y, err := os.ReadFile(filepath.Join(b, name))
		if err != nil || string(x) != string(y) {
			t.Errorf("%s differs: %v", name, err)
		}
	}
}

// TestShardsOfBothModels checks that embed merge joins shards of DNA and protein files to the outputs of one run. A run
// without --shard must find the joined outputs complete.
func TestShardsOfBothModels(t *testing.T) {
	workspace(t)
	write(t, "in/sub/p.faa", manyProteins("p", 60))
	write(t, "in/q.faa", proteinFile)
	write(t, "in/n.fna", nucleotideFile)
	args := []string{"--esm-model", tiny, "--dnabert-model", tinyDNA, "--pool", "mean,residues"}
	embed(t, append(args, "-o", "one", "in")...).wantCode(0)
	for i, task := range []string{"SLURM_ARRAY_TASK_ID=1", "JOB_COMPLETION_INDEX=1", "AWS_BATCH_JOB_ARRAY_INDEX=2"} {
		dir := []string{"a", "b", "a"}[i]
		embedWith(t, []string{task}, append(args, "--shard", "auto", "--shards", "3", "-o", dir, "in")...).wantCode(0)
		if i == 1 {
			r := embed(t, "merge", "-o", "two", "a", "b").wantCode(exitNothing)
			r.wantProblem("shards are missing", "3-of-3", "--allow-missing")
			embed(t, "merge", "-o", "two", "a", "c").wantCode(exitNothing).wantProblem("c does not exist", "--allow-missing")
			embed(t, "merge", "-o", "two", "in/q.faa").wantCode(exitNothing).wantProblem("in/q.faa is not a folder")
			embed(t, "merge", "-o", "two", "--allow-missing", "one").wantCode(exitNothing).wantProblem("no shard in any folder")
		}
	}
	embed(t, append(args, "--shard", "2/3", "-o", "b", "in")...).wantCode(0)
	r := embed(t, "merge", "-o", "two", "a", "b").wantCode(0)
	if !strings.Contains(r.stdout, "two/sub/p.esm2-tiny.parquet: 60 records") {
		t.Error(r.stdout)
	}
	sameFolders(t, "one", "two")
	write(t, "two/"+store.ManifestName, read(t, "two/"+store.ManifestName)+"junk\n")
	embed(t, "merge", "-o", "two", "a", "b").wantCode(exitNothing).wantProblem("--repair", "--force")
	embed(t, "merge", "--force", "-o", "two", "a", "b").wantCode(0)
	r = embed(t, append(args, "-o", "two", "in")...).wantCode(0)
	if !strings.Contains(r.stdout, "q.faa was complete already") {
		t.Error(r.stdout)
	}
	if r := embed(t, "inspect", "a").wantCode(0); !strings.Contains(r.stdout, "complete") || strings.Contains(r.stdout, "foreign") {
		t.Error(r.stdout)
	}
	embed(t, append(args, "--long", "window", "--shard", "2/3", "-o", "b2", "in")...).wantCode(0)
	embed(t, "merge", "-o", "three", "a", "b2").wantCode(exitNothing).wantProblem("do not belong together", "long")
	embed(t, "merge", "-o", "three", "--allow-missing", "a").wantCode(exitSome)
}

// TestMergeBesideOtherArrays checks that embed merge does not write a list of ids beside arrays of another run, unless
// --force removes the arrays.
func TestMergeBesideOtherArrays(t *testing.T) {
	workspace(t)
	write(t, "a.faa", manyProteins("a", 70))
	embed(t, npyArgs("--pool", "mean,cls", "a.faa")...).wantCode(exitDone)
	if err := os.Remove("out/a.esm2-tiny.ids.txt"); err != nil {
		t.Fatal(err)
	}
	for _, shard := range []string{"1/2", "2/2"} {
		embed(t, "--esm-model", tiny, "--format", "npy", "--pool", "max", "--shard", shard, "-o", "shards", "a.faa").wantCode(exitDone)
	}
	embed(t, "merge", "-o", "out", "shards").wantCode(exitNothing).wantProblem("a.esm2-tiny.cls.npy would lie beside the ids of another output", "--force")
	embed(t, "merge", "--force", "-o", "out", "shards").wantCode(exitDone)
	wantFiles(t, "out", "a.esm2-tiny.ids.txt", "a.esm2-tiny.npy", "manifest.jsonl")
}

// TestShardsOfCompressedInputs checks that the log of a shard gives the number of inputs that the shard has to
// decompress as a whole.
func TestShardsOfCompressedInputs(t *testing.T) {
	workspace(t)
	content := gzipped(t, manyProteins("p", 300))
	write(t, "p.faa.gz", content)
	write(t, "q.faa", proteinFile)
	args := []string{"--esm-model", tiny, "--log-format", "json", "-o", "out"}
	r := embed(t, append(args, "--shard", "1/2", "p.faa.gz", "q.faa")...).wantCode(0)
	if !strings.Contains(r.stderr, fmt.Sprintf(`"inputs":1,"bytes":%d}`, len(content))) || !strings.Contains(r.stderr, "files of bgzip are cut instead") {
		t.Error(r.stderr)
	}
	r = embed(t, append(args[:4], "-o", "two", "--shard", "1/2", "q.faa")...).wantCode(0)
	if strings.Contains(r.stderr, "bgzip") {
		t.Error(r.stderr)
	}
}

// TestShardFlags checks that invalid uses of --shard, --shards and embed merge cause an error that names the mistake.
func TestShardFlags(t *testing.T) {
	workspace(t)
	write(t, "p.faa", proteinFile)
	withStdin(t, proteinFile)
	for _, c := range []struct{ environ, args, says string }{
		{"", "--shard 0/3 p.faa", "I/N"},
		{"", "--shard 4/3 p.faa", "I/N"},
		{"", "--shard 2 p.faa", "I/N"},
		{"", "--shard 1/2x p.faa", "I/N"},
		{"", "--shards 3 p.faa", "--shard auto"},
		{"", "--shard 1/3 --shards 3 p.faa", "--shard auto"},
		{"", "--shard auto p.faa", "--shards N"},
		{"", "--shard auto --shards 3 p.faa", "SLURM_ARRAY_TASK_ID"},
		{"SLURM_ARRAY_TASK_ID=0", "--shard auto --shards 3 p.faa", "1 to 3"},
		{"SLURM_ARRAY_TASK_ID=4", "--shard auto --shards 3 p.faa", "1 to 3"},
		{"JOB_COMPLETION_INDEX=3", "--shard auto --shards 3 p.faa", "0 to 2"},
		{"", "--shard 1/2 --preset virnucpro p.faa", "--preset"},
		{"", "--shard 1/2 --esm-model synthetic:esm2-tiny --protein -", "read only once"},
		{"", "merge", "output folders"},
		{"", "merge --duplicates no a", "--duplicates"},
	} {
		embedWith(t, []string{c.environ}, strings.Fields(c.args)...).wantCode(exitUsage).wantProblem(c.says)
	}
	embed(t, "merge", "-o", "out", ".").wantCode(exitNothing).wantProblem("no plan of shards")
	if _, err := os.Stat("out"); err == nil {
		t.Error("a merge of nothing makes a folder")
	}
}
