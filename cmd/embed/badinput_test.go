package main

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fastqReads returns the content of a FASTQ file with n reads. Each id is one letter longer than the id before it.
func fastqReads(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("@read" + strings.Repeat("x", i) + "\nACGTN\n+\nIIIII\n")
	}
	return b.String()
}

func gzipped(t *testing.T, content string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestBadInputAlone checks that a run without any good input prints one line that names the fault, ends with exit code
// 1, and writes no output.
func TestBadInputAlone(t *testing.T) {
	workspace(t)
	reads := fastqReads(150)
	zipped := gzipped(t, proteinFile)
	write(t, "empty.faa", "")
	write(t, "blank.faa", "\n \n")
	write(t, "page.faa", "<!DOCTYPE html>\n<html><head><title>404</title></head></html>\n")
	write(t, "half.fastq", reads[:len(reads)/2])
	write(t, "cut.faa.gz", zipped[:len(zipped)-10])
	write(t, "binary.faa", "\x00\x01\x02\x7fELF")
	write(t, "no-header.faa", "MKVLWA\n")
	write(t, "folder/readme.txt", "nothing to see")
	for _, c := range []struct {
		args string
		says []string
	}{
		{"none.faa", []string{"none.faa", "no such file"}},
		{"folder", []string{"folder", "no FASTA or FASTQ files"}},
		{"*.nothing", []string{`"*.nothing"`, "nothing matches"}},
		{"--protein folder/none", []string{"folder/none", "no such file"}},
		{"empty.faa", []string{"empty.faa", "no records"}},
		{"blank.faa", []string{"blank.faa", "no records"}},
		{"page.faa", []string{"page.faa:1", "not FASTA or FASTQ", "html"}},
		{"binary.faa", []string{"binary.faa", "not FASTA or FASTQ"}},
		{"no-header.faa", []string{"no-header.faa:1", "not FASTA or FASTQ"}},
		{"half.fastq", []string{"half.fastq:", "ends inside this record"}},
		{"cut.faa.gz", []string{"cut.faa.gz", "gzip", "damaged, cut short or empty"}},
		{"empty.faa empty.faa", []string{"given twice: empty.faa"}},
	} {
		t.Run(c.args, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out")
			args := append([]string{"--esm-model", tiny, "--dnabert-model", tinyDNA, "-o", out}, strings.Fields(c.args)...)
			embed(t, args...).wantCode(exitNothing).wantProblem(c.says...)
			for _, name := range files(t, out) {
				if name != "failed_files.txt" {
					t.Errorf("%s was left", name)
				}
			}
		})
	}
	withStdin(t, "")
	embed(t, "--esm-model", tiny, "-o", "out", "-").wantCode(exitNothing).wantProblem("stdin", "no records")
}

// TestBadInputAmongGood checks that a bad input does not keep the other inputs from being embedded, and that
// failed_files.txt names the bad input. A later run in which no input fails must remove failed_files.txt.
func TestBadInputAmongGood(t *testing.T) {
	workspace(t)
	write(t, "a.faa", proteinFile)
	write(t, "b.faa", "<html></html>\n")
	write(t, "c.faa", proteinFile)
	r := embed(t, "--esm-model", tiny, "-o", "out", "a.faa", "b.faa", "c.faa").wantCode(exitSome)
	r.wantProblem("b.faa:1")
	wantFiles(t, "out", "a.esm2-tiny.parquet", "c.esm2-tiny.parquet", "failed_files.txt", "manifest.jsonl")
	list, err := os.ReadFile("out/failed_files.txt")
	if err != nil {
		t.Fatal(err)
	}
	if path, rest, _ := strings.Cut(string(list), "|"); !filepath.IsAbs(path) || filepath.Base(path) != "b.faa" || !strings.HasPrefix(rest, "format|b.faa:1: ") || strings.Count(rest, "\n") != 1 {
		t.Errorf("failed_files.txt holds %q", list)
	}
	if !strings.Contains(r.stdout, "b.faa FAILED (format)") {
		t.Errorf("the summary does not mention it:\n%s", r.stdout)
	}

	write(t, "b.faa", proteinFile)
	r = embed(t, "--esm-model", tiny, "-o", "out", "a.faa", "b.faa", "c.faa").wantCode(0)
	wantFiles(t, "out", "a.esm2-tiny.parquet", "b.esm2-tiny.parquet", "c.esm2-tiny.parquet", "manifest.jsonl")
	if strings.Count(r.stdout, "was complete already") != 2 || strings.Count(r.stdout, " -> ") != 1 {
		t.Errorf("the summary of the second run:\n%s", r.stdout)
	}

	// A rerun does not load the weights if all outputs are complete.
	r = embed(t, "--esm-model", tiny, "-o", "out", "a.faa", "b.faa", "c.faa").wantCode(0)
	if strings.Contains(r.stderr, "loading weights") || strings.Count(r.stdout, "was complete already") != 3 {
		t.Errorf("the third run:\n%s%s", r.stdout, r.stderr)
	}
}

// TestAllInputsFail checks that failed_files.txt is written even if all inputs fail.
func TestAllInputsFail(t *testing.T) {
	workspace(t)
	write(t, "a.faa", "<html></html>\n")
	write(t, "b.faa", "")
	r := embed(t, "--esm-model", tiny, "-o", "out", "a.faa", "b.faa").wantCode(exitNothing)
	if len(r.problems()) != 2 {
		t.Errorf("problems %q", r.problems())
	}
	wantFiles(t, "out", "failed_files.txt")
}

// TestBadModels checks that a bad model or tokenizer causes one line that names the fault, and exit code 1, before any
// file is written.
func TestBadModels(t *testing.T) {
	workspace(t)
	t.Setenv("HF_HOME", filepath.Join(t.TempDir(), "cache"))
	t.Setenv("HF_HUB_CACHE", "")
	write(t, "p.faa", proteinFile)
	write(t, "d.fna", nucleotideFile)
	writeCheckpoint(t, "tiny", tiny, nil)
	writeCheckpoint(t, "cut", tiny, nil)
	if err := os.Truncate("cut/model.safetensors", 100_000); err != nil {
		t.Fatal(err)
	}
	writeCheckpoint(t, "hole", tiny, func(name string, shape []int) []int {
		if name == "encoder.layer.1.output.dense.bias" {
			return nil
		}
		return shape
	})
	writeCheckpoint(t, "bent", tiny, func(name string, shape []int) []int {
		if name == "encoder.layer.1.output.dense.bias" {
			return []int{32}
		}
		return shape
	})
	writeCheckpoint(t, "other", tiny, nil)
	write(t, "other/config.json", `{"model_type":"llama","hidden_size":64}`)
	writeCheckpoint(t, "scrambled", tiny, nil)
	write(t, "scrambled/config.json", `{"model_type":`)
	write(t, "page/model.safetensors", "<!DOCTYPE html><html>Not found</html>")
	write(t, "lfs/model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:1234\nsize 5678\n")
	if err := os.Mkdir("bare", 0o777); err != nil {
		t.Fatal(err)
	}
	write(t, "broken.json", `{"model":{`)
	for _, c := range []struct {
		args string
		says []string
	}{
		{"--esm-model cut p.faa", []string{"--esm-model", "cut/model.safetensors"}},
		{"--esm-model hole p.faa", []string{"--esm-model", "hole", "1 missing", "encoder.layer.1.output.dense.bias"}},
		{"--esm-model bent p.faa", []string{"--esm-model", "bent", "encoder.layer.1.output.dense.bias", "[32]", "[64]"}},
		{"--esm-model other p.faa", []string{"--esm-model", "other", "llama"}},
		{"--esm-model scrambled p.faa", []string{"scrambled/config.json", "JSON"}},
		{"--esm-model page p.faa", []string{"page/model.safetensors"}},
		{"--esm-model lfs p.faa", []string{"lfs/model.safetensors"}},
		{"--esm-model bare p.faa", []string{"bare", "no checkpoint"}},
		{"--esm-model none/model.safetensors p.faa", []string{"none/model.safetensors"}},
		{"--esm-model esm9 p.faa", []string{"--esm-model", `"esm9"`, "esm2-650m"}},
		{"--esm-model synthetic:esm9 p.faa", []string{`"esm9"`, "esm2-tiny"}},
		{"--esm-model esm2-8m p.faa", []string{"facebook/esm2_t6_8M_UR50D", "not in the local cache", "hf download facebook/esm2_t6_8M_UR50D", "models--facebook--esm2_t6_8M_UR50D"}},
		{"--esm-model some/model p.faa", []string{"some/model", "not in the local cache", "cache"}},
		{"p.faa", []string{"facebook/esm2_t33_650M_UR50D"}},
		{"d.fna", []string{"zhihan1996/DNABERT-S"}},
		{"--dnabert-model tiny d.fna", []string{"--dnabert-model", "tiny", "ESM-2", "DNABERT is needed"}},
		{"--esm-model " + tinyDNA + " p.faa", []string{"--esm-model", "DNABERT", "ESM-2 is needed"}},
		{"--dnabert-model " + tinyDNA + " --dnabert-tokenizer none.json d.fna", []string{"none.json", "no such file"}},
		{"--dnabert-model " + tinyDNA + " --dnabert-tokenizer broken.json d.fna", []string{"broken.json"}},
		// A fault of the protein model is found before the DNA model runs.
		{"--dnabert-model " + tinyDNA + " --esm-model cut d.fna p.faa", []string{"cut/model.safetensors"}},
	} {
		t.Run(c.args, func(t *testing.T) {
			r := embed(t, append([]string{"-o", "out"}, strings.Fields(c.args)...)...).wantCode(exitNothing)
			r.wantProblem(c.says...)
			wantFiles(t, "out")
		})
	}

	// The folder tiny holds a complete checkpoint of the model esm2-tiny. A run with this folder must compute the same
	// embeddings as a run with synthetic:esm2-tiny, and name its output after the folder.
	embed(t, "--esm-model", "tiny", "-o", "out", "p.faa").wantCode(0)
	embed(t, "--esm-model", tiny, "-o", "out", "p.faa").wantCode(0)
	wantFiles(t, "out", "manifest.jsonl", "p.esm2-tiny.parquet", "p.tiny.parquet")
	real, synthetic := readParquet[parquetRow](t, "out/p.tiny.parquet"), readParquet[parquetRow](t, "out/p.esm2-tiny.parquet")
	for i := range real {
		if len(real[i].Embedding) != 64 || real[i].Embedding[0] != synthetic[i].Embedding[0] {
			t.Errorf("row %d differs between a checkpoint and its file", i)
		}
	}
}

// TestFolderThatCannotBeWritten checks that a run whose output folder cannot be written prints a single error line
// about the folder, however many inputs there are, and does not load the weights.
func TestFolderThatCannotBeWritten(t *testing.T) {
	workspace(t)
	write(t, "a.faa", proteinFile)
	write(t, "b.faa", proteinFile)
	write(t, "html.faa", "<html></html>")
	write(t, "file", "")
	r := embed(t, "--esm-model", tiny, "-o", "file/out", "a.faa", "b.faa").wantCode(exitNothing)
	r.wantProblem("file/out", "not a directory")
	if strings.Contains(r.stderr, "loading weights") {
		t.Errorf("too late:\n%s", r.stderr)
	}
	r = embed(t, "--esm-model", tiny, "-o", "file", "a.faa", "html.faa").wantCode(exitNothing)
	if list := r.problems(); len(list) != 2 || !strings.Contains(list[0], "html.faa:1") || !strings.Contains(list[1], "folder file: not a directory; --out takes another folder") || strings.Count(list[1], ";") > 1 {
		t.Errorf("problems %q", list)
	}

	if _, err := os.Stat("/proc/self"); err != nil {
		t.Skip("there is no /proc, a folder that even root cannot write to")
	}
	r = embed(t, "--esm-model", tiny, "-o", "/proc/embeddings", "a.faa", "b.faa").wantCode(exitNothing)
	r.wantProblem("/proc/embeddings")
}

// TestSettingsAreNotMixed checks that a run fails and computes nothing if an existing output was made with other
// settings, or from an input that has changed since. Settings that do not change the embeddings may differ.
func TestSettingsAreNotMixed(t *testing.T) {
	workspace(t)
	write(t, "p.faa", proteinFile)
	write(t, "d.fna", nucleotideFile)
	embed(t, "--esm-model", tiny, "-o", "out", "p.faa").wantCode(0)
	r := embed(t, "--esm-model", tiny, "--dnabert-model", tinyDNA, "--pool", "cls", "-o", "out", "p.faa", "d.fna").wantCode(exitNothing)
	r.wantProblem("out/p.esm2-tiny.parquet", `"mean"`, `"cls"`, "--force")
	wantFiles(t, "out", "manifest.jsonl", "p.esm2-tiny.parquet")

	// Neither the batch size, nor the number of threads, nor -v changes the embeddings.
	embed(t, "--esm-model", tiny, "--esm-batch-size", "77", "--threads", "1", "-v", "-o", "out", "p.faa").wantCode(0)

	write(t, "p.faa", ">other\nMKV\n")
	r = embed(t, "--esm-model", tiny, "-o", "out", "p.faa").wantCode(exitNothing)
	r.wantProblem("out/p.esm2-tiny.parquet", "another content of p.faa", "--force")
	embed(t, "--esm-model", tiny, "-o", "out", "--force", "p.faa").wantCode(0)
	if rows := readParquet[parquetRow](t, "out/p.esm2-tiny.parquet"); len(rows) != 1 || rows[0].ID != "other" {
		t.Errorf("--force left %+v", rows)
	}
}

// TestMessagesHoldNoControlCharacters checks that messages escape the control characters in file names.
func TestMessagesHoldNoControlCharacters(t *testing.T) {
	workspace(t)
	write(t, "red\x1b[31m.faa", "<html>\x1b[0m")
	r := embed(t, "--esm-model", tiny, "-o", "out", "red\x1b[31m.faa").wantCode(exitNothing)
	r.wantProblem(`red\x1b[31m.faa`)
	embed(t, "--esm-model", tiny, "-o", "out", "none\x1b.faa").wantCode(exitNothing).wantProblem(`none\x1b.faa`)
	for _, text := range []string{r.stderr, r.stdout} {
		if strings.Contains(text, "\x1b") {
			t.Errorf("%q", text)
		}
	}
}
