package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"seqembed/internal/store"
)

// wantPage fails the test unless the page of --report contains all parts. It also fails if the page has a script, an
// address of another server, NaN, or text that should have been escaped.
func wantPage(t *testing.T, path string, parts ...string) (page string) {
	t.Helper()
	page = read(t, path)
	for _, part := range parts {
		if !strings.Contains(page, part) {
			t.Errorf("%s does not contain %q", path, part)
		}
	}
	for _, part := range []string{"<script", "http:", "https:", "ZgotmplZ", "NaN", "\xe9", "\x1b", "<b>"} {
		if strings.Contains(page, part) {
			t.Errorf("%s contains %q", path, part)
		}
	}
	return page
}

// TestPageThatCannotBeWritten checks that a page which cannot be written is an error of the run.
func TestPageThatCannotBeWritten(t *testing.T) {
	workspace(t)
	write(t, "a.faa", proteinFile)
	name := strings.Repeat("n", 300) + ".html" // longer than file systems allow
	embed(t, npyArgs("--report", name, "a.faa")...).wantCode(exitSome).wantProblem("the page of the run", name)
	embed(t, "inspect", "out").wantCode(exitDone)
}

// TestPage checks the page of --report for a run of both models. The run has a failed file, truncated records, and
// names that contain HTML. A rerun that computes nothing must leave the page as it is. A rerun with one more file must
// replace the page by one about that file.
func TestPage(t *testing.T) {
	workspace(t)
	var long strings.Builder
	for i := range 130 {
		fmt.Fprintf(&long, ">long%03d\n%s\n", i, strings.Repeat("MKWV", 3+i%5))
	}
	write(t, "in/long.faa", long.String())
	write(t, "in/<script>\xe9.faa", ">caf\xe9\x1b[31m\nMKVLL\n><b>x</b><script>alert(1)</script>\nMKVLLIYAASC\n>x\nMKV\n")
	write(t, "in/bad.faa", ">x\nMK1\n")
	write(t, "in/c.fna", ">c1\nACGTNNACGT\n>c2\nACGTACGTTTACA\n>c3\nGGCATCAGGACTT\n")
	args := []string{"--esm-model", tiny, "--dnabert-model", tinyDNA, "-o", "out", "--max-length", "13", "--report", "run.html"}
	r := embed(t, append(args, "in")...).wantCode(exitSome)
	page := wantPage(t, "run.html", "<title>Embeddings of 3 files, 136 records</title>", "1 file failed.", "Embeddings of DNA by dnabert-tiny", "Embeddings of protein by esm2-tiny",
		"Throughput by device", "133 of 133 rows", "3 of 3 rows", "&lt;script&gt;", "letter 3: &#34;1&#34; is not a letter", ">long001<", "And 4 more.",
		"synthetic:esm2-tiny in fp32 for protein", "its embeddings carry no biology", release)
	if n := strings.Count(page, "<circle"); n != 136 {
		t.Errorf("%d points, want 136", n)
	}
	if !strings.Contains(r.stderr, "page=run.html") {
		t.Errorf("the log does not name the page:\n%s", r.stderr)
	}
	if err := os.Remove("in/bad.faa"); err != nil {
		t.Fatal(err)
	}
	embed(t, append(args, "in")...).wantCode(exitDone)
	if page != read(t, "run.html") {
		t.Error("a run that has computed nothing has replaced the page")
	}
	write(t, "in/more.faa", ">a\nMKV\n>b\nMKVL\n")
	embed(t, append(args, "in")...).wantCode(exitDone)
	wantPage(t, "run.html", "This page does not cover 3 files that were complete before.", "Embeddings of 1 file, 2 records", "no map of fewer than three rows")
}

// TestPageOfOtherRuns checks the pages of --report for a run whose outputs allow no map of embeddings, for a run with
// --windows, and for a run with --preset.
func TestPageOfOtherRuns(t *testing.T) {
	workspace(t)
	write(t, "a.faa", ">a\nMKVLLIYAASC\n>b\nMKVL\n>c\nMKVLLIYAASCMMMKV\n>d\nMKV\n")
	write(t, "n.fna", contigs)
	embed(t, "--esm-model", tiny, "-o", "tokens", "--pool", "residues", "--report", "tokens.html", "a.faa").wantCode(exitDone)
	wantPage(t, "tokens.html", "no pooling of this run has one row a record")
	embed(t, "--esm-model", tiny, "-o", "windows", "--layers", "0,2", "--pool", "tokens,max,cls", "--format", "npy", "--long", "window", "--windows", "--max-length", "6",
		"--report", "windows.htm", "a.faa").wantCode(exitDone)
	wantPage(t, "windows.htm", "7 of 7 rows of this run (max, layer 2)", "c:13-16")
	withSmallPreset(t, "--report", "preset.html", "n.fna").wantCode(exitDone)
	wantPage(t, "preset.html", "out/n_identified_nucleotide.fa", "out/n_identified_protein.faa", "s1_chunk_1R1")
}

// TestPageFlag checks that mistakes with --report are usage errors. If the user forgets the value, the page must not
// replace the next argument, which is an input.
func TestPageFlag(t *testing.T) {
	workspace(t)
	write(t, "a.faa", ">a\nMKV\n")
	for _, c := range []struct{ args, says string }{
		{"--report a.faa a.faa", ".html"}, {"--report none/run.html a.faa", "no folder none"}, {"--report run.html --dry-run a.faa", "--dry-run"},
		{"--report= a.faa", ".html"},
	} {
		embed(t, append([]string{"--esm-model", tiny, "-o", "out"}, strings.Fields(c.args)...)...).wantCode(exitUsage).wantProblem("--report", c.says)
	}
	if read(t, "a.faa") != ">a\nMKV\n" {
		t.Error("the input has changed")
	}
	write(t, "in.html", ">a\nMKV\n")
	for _, input := range []string{"in.html", "--protein=./in.html"} {
		embed(t, "--esm-model", tiny, "-o", "out", "--report", "in.html", input).wantCode(exitUsage).wantProblem("--report", "input", "in.html")
	}
	embed(t, "--esm-model", tiny, "-o", "out.html", "--report", "./out.html", "a.faa").wantCode(exitUsage).wantProblem("--report", "--out")
	if read(t, "in.html") != ">a\nMKV\n" {
		t.Error("the page has replaced an input")
	}
	embed(t, "--esm-model", tiny, "-o", "new", "--report", "new/run.html", "a.faa").wantCode(exitDone)
	wantPage(t, "new/run.html", "1 file, 1 record", "report.json")
	embed(t, "--esm-model", tiny, "-o", "new", "--report", "done.html", "a.faa").wantCode(exitDone)
	if page := wantPage(t, "done.html", "nothing to do", "does not cover 1 file that was complete before."); strings.Contains(page, "report.json") {
		t.Error("the page of a run that has computed nothing says that report.json has its figures")
	}
	embed(t, "--esm-model", tiny, "-o", "out", "--report", "run.html", "missing.faa").wantCode(exitNothing)
	wantPage(t, "run.html", "without a finished file", "missing.faa")
}

// TestSample checks the choice of rows for the map of embeddings. Every row of a file must have the same chance, each
// file must get its quota of rows, and the quotas of all files must add up to mapRows.
func TestSample(t *testing.T) {
	const rows, quota, runs = 40, 10, 4000
	var chosen [rows]int
	for run := range runs {
		f := observedFile{of: &observedModel{}, quota: quota, random: rand.New(rand.NewPCG(7, uint64(run)))}
		for i := range rows {
			f.rows++
			f.add(store.Row{ID: fmt.Sprint(i), Embeddings: [][]float32{{float32(i)}}})
		}
		if len(f.sample) != quota {
			t.Fatalf("%d rows, want %d", len(f.sample), quota)
		}
		for _, s := range f.sample {
			if fmt.Sprint(s.values[0]) != s.id {
				t.Fatalf("row %s has the values %v", s.id, s.values)
			}
			chosen[int(s.values[0])]++
		}
	}
	// Each count is binomial with a mean of 1,000 and a standard deviation of 27. It differs from the mean by more than
	// five standard deviations about once in a million times.
	for i, n := range chosen {
		if mean := runs * quota / rows; n < mean-5*27 || n > mean+5*27 {
			t.Errorf("row %d was chosen %d times, want about %d", i, n, mean)
		}
	}
	for _, files := range []int{1, 3, 1999, 2000, 7001} {
		sum := 0
		for i := range files {
			quota := quotaOf(i, files)
			if quota < mapRows/files || quota > mapRows/files+1 {
				t.Errorf("file %d of %d has %d rows", i, files, quota)
			}
			sum += quota
		}
		if sum != mapRows {
			t.Errorf("%d files have %d rows together", files, sum)
		}
	}
}
