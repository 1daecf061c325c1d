package store

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"seqembed/internal/half"
)

// readAll returns the ids, the letters of residues and the values of all rows of a file.
func readAll(t *testing.T, path string) (ids []string, letters [][]Letters, values [][][]float32, table *Table) {
	t.Helper()
	table, err := OpenTable(path)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	err = table.Read(func(r *Row) error {
		ids, letters = append(ids, r.ID), append(letters, slices.Clone(r.Residues))
		var row [][]float32
		for _, e := range r.Embeddings {
			row = append(row, slices.Clone(e))
		}
		values = append(values, row)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return ids, letters, values, table
}

// TestTablesReadBack checks that OpenTable reads the rows that were written in each of five formats, with several
// poolings, types of values and numbers of records.
func TestTablesReadBack(t *testing.T) {
	for _, f := range []Format{Parquet, Npy, Safetensors, H5, TSV} {
		for _, pooling := range []Pooling{Mean, Tokens, Residues} {
			for _, dtype := range DTypes() {
				for _, count := range []int{0, 1, 40} {
					s := spec(t, f, 33)
					s.DType, s.Columns, s.Matrix = dtype, columnsOf([]int{33}, pooling), f == H5 && pooling == Mean && count == 40
					checkReadBack(t, s, count)
				}
			}
		}
	}
	several := spec(t, Parquet)
	several.Columns, several.Compress = columnsOf([]int{0, 33}, Mean, Max), true
	checkReadBack(t, several, 40)
	several.Format, several.Compress = Safetensors, false
	checkReadBack(t, several, 40)
	several.Format = H5
	checkReadBack(t, several, 40)
	several.Matrix = true
	checkReadBack(t, several, 40)
}

func checkReadBack(t *testing.T, s Spec, count int) {
	t.Helper()
	name := fmt.Sprintf("%s of %v, %s, %d records", s.Format, s.Columns, s.DType, count)
	rows := makeRows(s, count)
	if pooling := s.pooling(); pooling != Mean {
		// A file of tokens or residues may have no row for a record without tokens or residues.
		rows = slices.DeleteFunc(rows, func(r Row) bool { return s.rows(&r) == 0 })
	}
	ids, letters, values, table := readAll(t, writeAll(t, s, rows)[0].Path)
	if len(ids) != len(rows) {
		t.Fatalf("%s: %d rows, want %d", name, len(ids), len(rows))
	}
	if len(rows) > 0 && (table.Dim != s.Dim || len(table.Columns) != len(s.Columns)) {
		t.Errorf("%s: dim %d and columns %v", name, table.Dim, table.Columns)
	}
	if len(s.Columns) > 1 {
		byName := map[Column]bool{}
		for _, c := range table.Columns {
			byName[c] = true
		}
		for _, c := range s.Columns {
			if !byName[c] {
				t.Errorf("%s: column %v is not among %v", name, c, table.Columns)
			}
		}
	}
	for i, r := range rows {
		if ids[i] != r.ID {
			t.Fatalf("%s: row %d is %.40q, want %.40q", name, i, ids[i], r.ID)
		}
		if s.pooling() == Residues && (s.Format == Parquet || s.Format == TSV) && !slices.Equal(letters[i], r.Residues) {
			t.Errorf("%s: row %d has letters %v, want %v", name, i, letters[i], r.Residues)
		}
		for c, column := range s.Columns {
			want := slices.Clone(r.Embeddings[c])
			if s.DType == FP16 {
				for j, v := range want {
					want[j] = half.FromFP16(half.ToFP16(v))
				}
			}
			at := 0
			if len(s.Columns) > 1 {
				at = slices.Index(table.Columns, column)
			}
			if !sameBits(values[i][at], want) {
				t.Fatalf("%s: row %d, column %v: %v, want %v", name, i, column, values[i][at], want)
			}
		}
	}
}

// TestConvert converts a safetensors file to another format, the result to the next format, and so on back to
// safetensors. Every file must have the same rows.
func TestConvert(t *testing.T) {
	for _, pooling := range []Pooling{Mean, Tokens} {
		s := spec(t, Safetensors, 33)
		s.Columns = columnsOf([]int{33}, pooling)
		rows := slices.DeleteFunc(plainRows(s, 40), func(r Row) bool { return s.rows(&r) == 0 })
		path := writeAll(t, s, rows)[0].Path
		wantIDs, _, want, _ := readAll(t, path)
		for i, name := range []string{"a.parquet", "b.h5", "c.tsv", "d.npy", "e.safetensors"} {
			format, dir, stem, err := FormatOf(filepath.Join(s.Dir, name))
			if err != nil {
				t.Fatal(err)
			}
			table, err := OpenTable(path)
			if err != nil {
				t.Fatal(err)
			}
			files, _, err := table.Convert(Spec{Format: format, Matrix: i == 1 && pooling == Mean}, dir, stem)
			if err != nil {
				t.Fatal(err)
			}
			if paths := table.ConvertedPaths(Spec{Format: format}, dir, stem); len(paths) != len(files) || paths[0] != files[0].Path {
				t.Errorf("wrote %v, announced %q", files, paths)
			}
			if err := table.Close(); err != nil {
				t.Fatal(err)
			}
			path = files[0].Path
			if ids, _, got, _ := readAll(t, path); !slices.Equal(ids, wantIDs) || !reflect.DeepEqual(got, want) {
				t.Fatalf("%s of %s has other rows", name, pooling)
			}
		}
	}
}

func TestDamagedTables(t *testing.T) {
	_, err := OpenTable("x.csv")
	wantError(t, err, "x.csv", "extension")
	for name, s := range everySpec(t) {
		path := writeAll(t, s, makeRows(s, 40))[0].Path
		if s.Format == Pt { // the output is a folder
			_, err := OpenTable(path)
			wantError(t, err, path, ErrForeignPt.Error())
			continue
		}
		content := readFile(t, path)
		for _, size := range []int{0, 7, len(content) / 2, len(content) - 9} {
			if err := os.WriteFile(path, content[:size], 0o666); err != nil {
				t.Fatal(err)
			}
			table, err := OpenTable(path)
			if err == nil {
				err = table.Read(func(*Row) error { return nil })
				table.Close()
			}
			wantError(t, err, path, ErrNoTable.Error())
			if t.Failed() {
				t.Fatalf("%s of %d bytes", name, size)
			}
		}
	}
}

// TestListOfIDs checks which text file of ids OpenTable finds for a NumPy array, and that a list with fewer or more ids
// than the array has rows is an error.
func TestListOfIDs(t *testing.T) {
	s := spec(t, Npy)
	s.Columns = columnsOf([]int{0, 12}, Mean, Max)
	files := writeAll(t, s, makeRows(s, 40))
	for _, f := range files[:4] {
		if ids, _, _, table := readAll(t, f.Path); !table.IDs || len(ids) != 40 {
			t.Errorf("%s: %d ids", f.Path, len(ids))
		}
	}
	list := files[4].Path
	for says, content := range map[string]string{"shorter": "a\nb\n", "longer": strings.Repeat("a\n", 41)} {
		if err := os.WriteFile(list, []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
		table, err := OpenTable(files[0].Path)
		if err != nil {
			t.Fatal(err)
		}
		wantError(t, table.Read(func(*Row) error { return nil }), files[0].Path, "the list of ids is "+says)
		table.Close()
	}
	// The list sample.A.esm2-8m.ids.txt does not belong to an array called sample.A.esm2-8m.other.npy.
	other := strings.TrimSuffix(list, idsSuffix) + ".other.npy"
	if err := os.Rename(files[0].Path, other); err != nil {
		t.Fatal(err)
	}
	if ids, _, _, table := readAll(t, other); table.IDs || len(ids) != 40 {
		t.Errorf("%s has the ids of another array", other)
	}
}

// TestConvertResiduesOfNpz converts residues from an .npz file. Those of DNA must keep their letters. Those of proteins
// have no array of letters in such a file, so they must become tokens, although the file's name says residues.
func TestConvertResiduesOfNpz(t *testing.T) {
	for _, kind := range []Kind{Nucleotide, Protein} {
		s := Spec{Dir: t.TempDir(), Base: "in", Model: "m", Kind: kind, Format: Npy, Dim: 2, Columns: columnsOf([]int{1}, Mean, Residues)}
		w, err := Create(s)
		if err != nil {
			t.Fatal(err)
		}
		letters := map[string][]Letters{"a": {{1, 3}, {4, 9}}, "b": {{1, 1}}}
		for _, id := range []string{"a", "b"} {
			values := make([]float32, 2*len(letters[id]))
			for i := range values {
				values[i] = float32(i + 1)
			}
			if err := w.Write(Row{ID: id, Length: 9, Tokens: 4, Residues: letters[id], Embeddings: [][]float32{{1, 2}, values}}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := w.Commit(); err != nil {
			t.Fatal(err)
		}
		table, err := OpenTable(filepath.Join(s.Dir, "in.m.residues.npz"))
		if err != nil {
			t.Fatal(err)
		}
		defer table.Close()
		if _, _, err := table.Convert(Spec{Format: Parquet}, s.Dir, "out"); err != nil {
			t.Fatal(err)
		}
		if kind == Protein {
			if table.Columns[0].Pooling != Tokens {
				t.Errorf("residues without letters are %s", table.Columns[0].Pooling)
			}
			continue
		}
		if got := lettersInParquet(t, filepath.Join(s.Dir, "out.parquet")); !maps.EqualFunc(got, letters, slices.Equal[[]Letters]) {
			t.Errorf("letters %v, want %v", got, letters)
		}
	}
}

// TestNpzOfTokensWithNamesOfLetters reads an .npz file with the tokens of the records a and a_letters. The second array
// has the name that an array of the first record's letters would have, but must be read as a record.
func TestNpzOfTokensWithNamesOfLetters(t *testing.T) {
	s := Spec{Dir: t.TempDir(), Base: "in", Model: "m", Kind: Nucleotide, Format: Npy, Dim: 2, Columns: columnsOf([]int{1}, Tokens)}
	w, err := Create(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"a", "a_letters"} {
		if err := w.Write(Row{ID: id, Length: 9, Tokens: 2, Embeddings: [][]float32{{1, 2, 3, 4}}}); err != nil {
			t.Fatal(err)
		}
	}
	files, err := w.Commit()
	if err != nil {
		t.Fatal(err)
	}
	table, err := OpenTable(files[0].Path)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	var ids []string
	err = table.Read(func(r *Row) error {
		ids = append(ids, r.ID)
		if r.Tokens != 2 || r.Residues != nil {
			t.Errorf("record %q is %+v", r.ID, r)
		}
		return nil
	})
	if err != nil || !slices.Equal(ids, []string{"a", "a_letters"}) || table.Columns[0].Pooling != Tokens {
		t.Errorf("records %q of %s, error %v", ids, table.Columns[0].Pooling, err)
	}
}
