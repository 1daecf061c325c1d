package store

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestReadVirNucPro checks that OpenTable reads VirNucPro's files of DNA, of proteins and of both merged, with
// different numbers of records.
func TestReadVirNucPro(t *testing.T) {
	for _, count := range []int{0, 1, 300} {
		dna, protein, dnaRows, proteinRows := pair(t, count, 7, 5)
		merged := filepath.Join(t.TempDir(), "merged.pt")
		if _, err := MergeVirNucPro(t.Context(), dna, protein, merged); err != nil {
			t.Fatal(err)
		}
		both := make([]Row, count)
		for i := range both {
			both[i] = Row{ID: dnaRows[i].ID, Embeddings: [][]float32{slices.Concat(dnaRows[i].Embeddings[0], proteinRows[i].Embeddings[0])}}
		}
		for path, want := range map[string][]Row{dna: dnaRows, protein: proteinRows, merged: both} {
			table, err := OpenTable(path)
			if err != nil {
				t.Fatal(err)
			}
			defer table.Close()
			for range 2 { // a table can be read again
				i := 0
				err = table.Read(func(r *Row) error {
					if i >= count || r.ID != want[i].ID || !sameBits(r.Embeddings[0], want[i].Embeddings[0]) {
						return fmt.Errorf("record %d is %+v", i, r)
					}
					i++
					return nil
				})
				if err != nil || i != count || count > 0 && table.Dim != len(want[0].Embeddings[0]) || table.DType != FP32 || !table.IDs {
					t.Errorf("%s: %d records of %d %s values, error %v", path, i, table.Dim, table.DType, err)
				}
			}
		}
	}
}

// TestSurveyOfVirNucPro checks that Survey counts bad and repeated values in a file that joins DNA and proteins. The
// test writes the file with mergedEncoder, because a Writer refuses NaN, infinities and rows of zeros.
func TestSurveyOfVirNucPro(t *testing.T) {
	files := fileSet{fs: osFS{}}
	path := filepath.Join(t.TempDir(), "merged.pt")
	m, err := newMergedEncoder(&files, path)
	if err != nil {
		t.Fatal(err)
	}
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, r := range []Row{{ID: "a", Embeddings: [][]float32{{1, 2}}}, {ID: "b", Embeddings: [][]float32{{nan, inf}}}, {ID: "a", Embeddings: [][]float32{{0, 0}}},
		{ID: "data", Embeddings: [][]float32{{3, 3}}}, {ID: "e", Embeddings: [][]float32{{1, 2}}}} {
		err = errors.Join(err, m.add(r.ID, r.Embeddings[0]))
	}
	if err = errors.Join(err, m.finish()); err == nil {
		_, err = files.commit()
	}
	if err != nil {
		t.Fatal(err)
	}
	table, err := OpenTable(path)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	got, err := table.Survey()
	want := Survey{Records: 5, RepeatedIDs: 1, Counted: 5, Columns: []ColumnSurvey{{Rows: 5, NaN: 1, Infinite: 1, Zero: 1, Constant: 1, Repeated: 1,
		FirstNaN: "b", FirstInf: "b", FirstZero: "a", FirstSame: "data"}}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
}

// changedPickle writes a copy of a PyTorch file in which the pickle is replaced by the result of change, and returns
// the path of the copy.
func changedPickle(t *testing.T, path string, change func(code string) string) string {
	t.Helper()
	in, err := zip.OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	changed := filepath.Join(t.TempDir(), "changed.pt")
	f, err := os.Create(changed)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := zip.NewWriter(f)
	for _, entry := range in.File {
		r, err := entry.Open()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(entry.Name, "data.pkl") {
			content = []byte(change(string(content)))
		}
		w, err := out.CreateHeader(&zip.FileHeader{Name: entry.Name, Method: zip.Store})
		if _, err2 := w.Write(content); err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return changed
}

// withoutFirstID removes the first item of the first list in a pickle. The item must be a text of fewer than 256 bytes.
func withoutFirstID(code string) string {
	from := strings.IndexByte(code, opEmptyList) + 1
	return code[:from] + code[from+5+int(code[from+1])+1:]
}

// TestReadVirNucProRefuses checks that VirNucPro files with a hostile, shortened or inconsistent pickle, or with a
// changed tensor, cause an ErrNoTable that names the file.
func TestReadVirNucProRefuses(t *testing.T) {
	dna, protein, _, _ := pair(t, 3, 7, 5)
	merged := filepath.Join(t.TempDir(), "merged.pt")
	if _, err := MergeVirNucPro(t.Context(), dna, protein, merged); err != nil {
		t.Fatal(err)
	}
	replace := func(old, new string) func(string) string {
		return func(code string) string {
			if !strings.Contains(code, old) {
				t.Fatalf("the pickle does not contain %q", old)
			}
			return strings.Replace(code, old, new, 1)
		}
	}
	damaged := filepath.Join(t.TempDir(), "damaged.pt")
	content, err := os.ReadFile(merged)
	if err != nil {
		t.Fatal(err)
	}
	content[100]++ // in the tensor
	if err := os.WriteFile(damaged, content, 0o666); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"another function":  changedPickle(t, merged, replace("ctorch._utils\n_rebuild_tensor_v2\n", "cos\nsystem\n")),
		"a function in DNA": changedPickle(t, dna, replace("G", "cos\nsystem\nG")),
		"one in proteins":   changedPickle(t, protein, replace("ctorch\nFloatStorage\n", "cos\nsystem\n")),
		"another shape":     changedPickle(t, merged, replace("K\x03K\x0c\x86", "K\x02K\x0c\x86")),
		"a long text":       changedPickle(t, dna, replace("X\x04\x00\x00\x00data", "X\xff\xff\xff\x7fdata")),
		"no end":            changedPickle(t, protein, func(code string) string { return code[:20] }),
		"a record less":     changedPickle(t, protein, withoutFirstID),
		"another key":       changedPickle(t, protein, replace("proteins", "proteinS")),
		"a changed tensor":  damaged,
	} {
		table, err := OpenTable(path)
		if err == nil {
			_, err = table.Survey()
			table.Close()
		}
		if !errors.Is(err, ErrNoTable) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}
