package main

import (
	"archive/zip"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// changeZip writes a copy of a zip file. The function change returns the new content of each entry.
func changeZip(t *testing.T, from, to string, change func(name string, content []byte) []byte) {
	t.Helper()
	in, err := zip.OpenReader(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	var changed bytes.Buffer
	out := zip.NewWriter(&changed)
	for _, entry := range in.File {
		r, err := entry.Open()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		w, err := out.CreateHeader(&zip.FileHeader{Name: entry.Name, Method: zip.Store})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(change(entry.Name, content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, to, changed.String())
}

// wantPrinted fails the test unless standard output contains all parts.
func wantPrinted(t *testing.T, r result, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(r.stdout, part) {
			t.Errorf("no %q in %q", part, r.stdout)
		}
	}
}

// TestInspectRecordOfPt inspects a .pt file of one record, in the layout of fair-esm's extract.py. embed inspect must
// count its rows, a NaN and a row of zeros, and refuse damaged files and a pickle that would run a command.
func TestInspectRecordOfPt(t *testing.T) {
	workspace(t)
	write(t, "p.faa", ">a x\nMKVLA\n")
	embed(t, "--esm-model", tiny, "-o", "out", "--format", "pt", "--pool", "residues,mean,cls", "--layers", "0,2", "p.faa").wantCode(exitDone)
	const path = "out/p.esm2-tiny.pt/a x.pt"
	r := embed(t, "inspect", path).wantCode(exitDone)
	wantPrinted(t, r, "pt, 1 records\n", "\nrepresentations of layer 0: 5 rows of 64 fp32\n", "\nmean_representations of layer 2: 1 rows of 64 fp32\n",
		"\nbos_representations of layer 2: 1 rows of 64 fp32\n")
	if n := strings.Count(r.stdout, "\n"); n != 7 {
		t.Errorf("%d lines, want 7: %q", n, r.stdout)
	}
	embed(t, "--esm-model", tiny, "-o", "half", "--format", "pt", "--dtype-out", "fp16", "p.faa").wantCode(exitDone)
	wantPrinted(t, embed(t, "inspect", "half/p.esm2-tiny.pt/a x.pt").wantCode(exitDone), "mean_representations of layer 3: 1 rows of 64 fp16\n")

	changeZip(t, path, "bad.pt", func(name string, content []byte) []byte {
		if strings.HasSuffix(name, "data/0") { // 5 rows of 64 values
			copy(content[4*64:], make([]byte, 4*64))
			copy(content[8*64:], "\x00\x00\xc0\x7f")
			copy(content[16*64:], content[12*64:16*64])
		}
		return content
	})
	wantPrinted(t, embed(t, "inspect", "bad.pt").wantCode(exitSome), "layer 0: 5 rows of 64 fp32, 1 NaN values (first in a x), 1 rows of zeros (first in a x), 1 rows equal to an earlier one\n")
	changeZip(t, path, "hostile.pt", func(name string, content []byte) []byte {
		return bytes.Replace(content, []byte("ctorch._utils\n_rebuild_tensor_v2\n"), []byte("cos\nsystem\n"), 1)
	})
	embed(t, "inspect", "hostile.pt").wantCode(exitNothing).wantProblem("hostile.pt", "os.system", "only tensors are read")
	changeZip(t, path, "other.pt", func(name string, content []byte) []byte {
		return bytes.Replace(content, []byte("label"), []byte("Label"), 1)
	})
	embed(t, "inspect", "other.pt").wantCode(exitNothing).wantProblem("other.pt", "neither a record of extract.py nor a file of VirNucPro")
	whole := read(t, path)
	at := strings.Index(whole, "data/0") + 100 // in the first tensor
	write(t, "damaged.pt", whole[:at]+string(whole[at]^1)+whole[at+1:])
	embed(t, "inspect", "damaged.pt").wantCode(exitNothing).wantProblem("damaged.pt", "checksum")
	write(t, "cut.pt", whole[:len(whole)/2])
	embed(t, "inspect", "cut.pt").wantCode(exitNothing).wantProblem("cut.pt", "cannot be read")
	embed(t, "convert", path, "x.npy").wantCode(exitNothing).wantProblem("a x.pt", "virnucpro")
	embed(t, "convert", "p.faa", "x.pt").wantCode(exitUsage).wantProblem("x.pt", "extension")
}

// TestInspectVirNucPro checks that embed inspect reads the three .pt files of --preset virnucpro. After the conversion
// of a file to h5, embed inspect must print the same counts.
func TestInspectVirNucPro(t *testing.T) {
	workspace(t)
	write(t, "n.fna", contigs)
	withSmallPreset(t, "n.fna").wantCode(exitDone)
	files, err := filepath.Glob("out/*.pt")
	if err != nil || len(files) != 3 {
		t.Fatalf("files %q, %v, want three", files, err)
	}
	for _, file := range files {
		said := embed(t, "inspect", file).stdout
		embed(t, "convert", "--force", file, "x.h5").wantCode(exitDone)
		_, values, _ := strings.Cut(said, "embeddings: ")
		if !strings.Contains(said, "virnucpro, ") || values == "" || !strings.Contains(embed(t, "inspect", "x.h5").stdout, values) {
			t.Errorf("inspect says %q, and after a conversion %q", said, embed(t, "inspect", "x.h5").stdout)
		}
	}
}

// TestInspectPublishedVirNucPro checks that embed inspect reads files that VirNucPro itself has written.
func TestInspectPublishedVirNucPro(t *testing.T) {
	folder, err := filepath.Abs("../../../shared/goldens/published/virnucpro")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(folder); err != nil {
		t.Skip("../shared/goldens/published/virnucpro does not exist")
	}
	for name, dim := range map[string]string{"output_1_DNABERT_S.pt": "768", "output_1_ESM.pt": "2560", "output_1_merged.pt": "3328"} {
		wantPrinted(t, embed(t, "inspect", filepath.Join(folder, name)).wantCode(exitDone), "virnucpro, 4 records\nembeddings: 4 rows of "+dim+" fp32\n")
	}
}
