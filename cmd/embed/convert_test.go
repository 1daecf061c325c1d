package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// TestConvertAndInspect converts an output through several formats and back to Parquet, and checks that embed inspect
// counts the same records and rows in every file. Impossible conversions and wrong flags must be refused.
func TestConvertAndInspect(t *testing.T) {
	workspace(t)
	write(t, "p.faa", ">a\nMKV\n>b\nMKVMKV\n>c\nMKV\n")
	embed(t, "--esm-model", tiny, "-o", "out", "p.faa").wantCode(0)
	path := "out/p.esm2-tiny.parquet"
	var first string
	for i, out := range []string{"x.h5", "x.tsv", "x.npy", "x.safetensors", "y.parquet"} {
		r := embed(t, "convert", path, out).wantCode(0)
		if !strings.Contains(r.stdout, out+" (") {
			t.Errorf("convert to %s prints %q", out, r.stdout)
		}
		r = embed(t, "inspect", out).wantCode(0)
		_, said, _ := strings.Cut(r.stdout, "3 records")
		_, said, _ = strings.Cut(said, ": ")
		if !strings.Contains(said, "3 rows of ") || !strings.Contains(said, "1 rows equal to an earlier one") {
			t.Errorf("inspect %s prints %q", out, r.stdout)
		}
		if i == 0 {
			first = said
		}
		if said != first {
			t.Errorf("inspect %s says %q, of the first file %q", out, said, first)
		}
		path = out
	}
	embed(t, "convert", "x.h5", "y.parquet").wantCode(exitNothing).wantProblem("y.parquet exists", "--force")
	embed(t, "convert", "--force", "--dtype-out", "fp16", "x.h5", "y.parquet").wantCode(0)
	r := embed(t, "inspect", "--json", "y.parquet").wantCode(0)
	var got struct {
		Records int
		Columns []struct{ DType string }
	}
	if err := json.Unmarshal([]byte(r.stdout), &got); err != nil || got.Records != 3 || len(got.Columns) != 1 || got.Columns[0].DType != "fp16" {
		t.Errorf("%s: %v", r.stdout, err)
	}
	for _, c := range []struct{ args, says string }{
		{"convert x.h5", "two files"}, {"convert x.h5 x.h5", "read and written"}, {"convert x.h5 z.csv", "extension"},
		{"convert --compress x.h5 z.npy", "--compress"}, {"convert --h5-matrix x.h5 z.npy", "--h5-matrix"},
		{"convert --dtype-out int8 x.h5 z.npy", "--dtype-out"}, {"convert x.h5 .npy", "no name"}, {"inspect --quick x.h5", "--quick"},
	} {
		embed(t, strings.Fields(c.args)...).wantCode(exitUsage).wantProblem(c.says)
	}
}

// TestInspectFindsBadValues checks that embed inspect counts NaN values, infinite values, rows of zeros, constant rows
// and repeated ids. embed inspect must reject a file that is cut short, and embed convert must reject a file with a
// NaN.
func TestInspectFindsBadValues(t *testing.T) {
	workspace(t)
	write(t, "bad.tsv", "id\t0\t1\na\tNaN\t1\nb\t2\t2\nc\t0\t0\na\t+Inf\t1\n")
	r := embed(t, "inspect", "bad.tsv").wantCode(exitSome)
	for _, part := range []string{"4 records, 1 with the id of an earlier one", "1 NaN values (first in a)", "1 infinite values", "1 rows of zeros (first in c)", "1 constant rows (first in b)"} {
		if !strings.Contains(r.stdout, part) {
			t.Errorf("no %q in %q", part, r.stdout)
		}
	}
	if err := os.WriteFile("cut.tsv", []byte("id\t0\t1\na\t1"), 0o666); err != nil {
		t.Fatal(err)
	}
	embed(t, "inspect", "cut.tsv").wantCode(exitNothing).wantProblem("cut.tsv", "cannot be read")
	embed(t, "convert", "bad.tsv", "bad.npy").wantCode(exitNothing).wantProblem(`"a"`, "NaN")
}

// TestConvertToFloat16 checks that a conversion to float16 turns values beyond the range of float16 into infinities,
// and that a message gives the number of these values.
func TestConvertToFloat16(t *testing.T) {
	workspace(t)
	write(t, "big.tsv", "id\t0\t1\na\t1e5\t1\nb\t2\t-7e4\n")
	r := embed(t, "convert", "--dtype-out", "fp16", "big.tsv", "big.npy").wantCode(0)
	if !strings.Contains(r.stderr, "2 values") || !strings.Contains(r.stderr, "fp32") {
		t.Errorf("convert says %q", r.stderr)
	}
	if err := os.Rename("big.ids.txt", "other.ids.txt"); err != nil {
		t.Fatal(err)
	}
	embed(t, "convert", "big.npy", "out.h5").wantCode(exitNothing).wantProblem("big.npy: there are no ids", "beside it, big.ids.txt")
	r = embed(t, "inspect", "big.npy").wantCode(exitSome)
	if !strings.Contains(r.stdout, "2 infinite values") {
		t.Errorf("inspect says %q", r.stdout)
	}
}

// TestConvertBesideOtherArrays checks that embed convert refuses to replace the list of ids of an array that it does
// not replace.
func TestConvertBesideOtherArrays(t *testing.T) {
	workspace(t)
	write(t, "a.faa", proteinFile)
	embed(t, npyArgs("--layers", "0,1", "a.faa")...).wantCode(0)
	embed(t, "--esm-model", tiny, "-o", "one", "a.faa").wantCode(0)
	embed(t, "convert", "--force", "one/a.esm2-tiny.parquet", "out/a.esm2-tiny.npy").wantCode(exitNothing).wantProblem("a.esm2-tiny.layer0.npy would lie beside the ids")
	embed(t, "convert", "one/a.esm2-tiny.parquet", "out/a.npy").wantCode(0)
	embed(t, "convert", "--force", "one/a.esm2-tiny.parquet", "out/a.npy").wantCode(0)
}

// TestConvertKeepsWindowsApart checks that embed convert appends the range of letters of each window to the id, such as
// w:1-12. In the Parquet output of a run with --windows, all windows of a record have the same id.
func TestConvertKeepsWindowsApart(t *testing.T) {
	workspace(t)
	write(t, "w.faa", ">w\nMKVLAWWYFFMKVLAWWYFF\n>v\nMKVLA\n")
	for _, pool := range []string{"mean", "residues", "tokens"} {
		args := []string{"--esm-model", tiny, "--windows", "--long", "window", "--max-length", "12", "--overlap", "4", "--pool", pool, "-o", pool}
		embed(t, append(args, "w.faa")...).wantCode(0)
		embed(t, "inspect", pool+"/w.esm2-tiny.parquet").wantCode(0)
		right, wrong := ".npz", ".npy"
		if pool == "mean" {
			right, wrong = wrong, right
		}
		embed(t, "convert", pool+"/w.esm2-tiny.parquet", pool+wrong).wantCode(exitUsage).wantProblem(pool+wrong, "is "+right)
		embed(t, "convert", pool+"/w.esm2-tiny.parquet", pool+right).wantCode(0)
		ids, err := os.ReadFile(pool + ".ids.txt")
		if want := "w:1-12\nw:9-20\nv:1-5\n"; err != nil || string(ids) != want {
			t.Errorf("%s: ids %q, %v, want %q", pool, ids, err, want)
		}
	}
}
