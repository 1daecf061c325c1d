package store

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"

	"seqembed/internal/hdf5"
)

// readError writes content to a new file with the given name and reads it. It returns the error, which must be nil or
// an ErrNoTable that names the file.
func readError(t *testing.T, name string, content []byte) error {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o666); err != nil {
		t.Fatal(err)
	}
	table, err := OpenTable(path)
	if err == nil {
		err = table.Read(func(*Row) error { return nil })
		table.Close()
	}
	if err != nil && (!errors.Is(err, ErrNoTable) || !strings.Contains(err.Error(), path)) {
		t.Errorf("error %v", err)
	}
	return err
}

// TestNpzChecksums checks that a changed bit in an array of embeddings or of letters, and bytes after an array, are
// errors.
func TestNpzChecksums(t *testing.T) {
	s := spec(t, Npy, 33)
	s.Kind, s.Columns = Nucleotide, columnsOf([]int{33}, Residues)
	rows := makeRows(s, 4)
	content := readFile(t, writeAll(t, s, rows)[0].Path)
	if err := readError(t, "x.npz", content); err != nil {
		t.Fatal(err)
	}
	for _, array := range [][]byte{appendFloats(nil, FP32, rows[3].Embeddings[0]), appendLetters(nil, rows[3].Residues)} {
		damaged := slices.Clone(content)
		damaged[bytes.LastIndex(damaged, array)+len(array)-1] ^= 1
		wantError(t, readError(t, "x.npz", damaged), "checksum")
	}
	var longer bytes.Buffer
	w := zip.NewWriter(&longer)
	entry, err := w.Create("x.npy")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := entry.Write(append(npyHeader(FP32.npy(), 2, 3), make([]byte, 4*2*3+5)...)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	wantError(t, readError(t, "x.npz", longer.Bytes()), "5 bytes follow the last row")
}

// TestMergeChecksums checks that MergeVirNucPro compares the checksum of data.pkl, of both files.
func TestMergeChecksums(t *testing.T) {
	dna, protein, _, _ := pair(t, 3, 7, 5)
	damage := func(path, code string) string {
		content := readFile(t, path)
		at := strings.LastIndex(string(content), code)
		if at < 0 {
			t.Fatalf("%s does not contain %q", path, code)
		}
		content[at+1] ^= 1 // an operand that MergeVirNucPro does not compare with anything
		damaged := filepath.Join(t.TempDir(), filepath.Base(path))
		if err := os.WriteFile(damaged, content, 0o666); err != nil {
			t.Fatal(err)
		}
		return damaged
	}
	badDNA, badProtein := damage(dna, "\x80\x02}"), damage(protein, "K\x05\x85")
	merged := filepath.Join(t.TempDir(), "merged.pt")
	_, err := MergeVirNucPro(t.Context(), badDNA, protein, merged)
	wantError(t, err, badDNA, "checksum")
	_, err = MergeVirNucPro(t.Context(), dna, badProtein, merged)
	wantError(t, err, badProtein, "checksum")
	if _, err := os.Stat(merged); !os.IsNotExist(err) {
		t.Errorf("the merged file exists, error %v", err)
	}
}

// TestSafetensorsOfSeveralLayers checks that a safetensors file of tokens with several layers is refused, because its
// tensors are not one for each record.
func TestSafetensorsOfSeveralLayers(t *testing.T) {
	s := spec(t, Safetensors)
	s.Columns = columnsOf([]int{6, 12}, Tokens)
	content := readFile(t, writeAll(t, s, makeRows(s, 3))[0].Path)
	wantError(t, readError(t, "x.safetensors", content), "several layers", "parquet")
	// One tensor for each record, but one of another name, or one too few.
	s.Columns = s.Columns[:1]
	rows := makeRows(s, 3)
	rows[0].ID, rows[1].ID, rows[2].ID = "P0", "P1", "P2"
	content = readFile(t, writeAll(t, s, rows)[0].Path)
	if err := readError(t, "x.safetensors", content); err != nil {
		t.Fatal(err)
	}
	wantError(t, readError(t, "x.safetensors", bytes.Replace(content, []byte(`"P0":`), []byte(`"P9":`), 1)), "P9")
	wantError(t, readError(t, "x.safetensors", bytes.Replace(content, []byte(`\"P0\",`), []byte(`       `), 1)), "P0")
	wantError(t, readError(t, "x.safetensors", bytes.Replace(content, []byte(`\"P2\"`), []byte(`\"P2\",\"P3\"`), 1)))
}

// TestSafetensorsShapes checks that shapes which do not fit the body of the file, some only because their product
// exceeds 64 bits, are refused before memory is allocated for them.
func TestSafetensorsShapes(t *testing.T) {
	for _, shape := range []string{"[4611686018427387904,4]", "[10000000000,0]", "[4,4611686018427387904]", "[0,0]", "[1,-4]", "[3,2]"} {
		for _, name := range []string{"embeddings", "record"} {
			header := `{"` + name + `":{"dtype":"F32","shape":` + shape + `,"data_offsets":[0,0]}}`
			content := append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...)
			wantError(t, readError(t, "x.safetensors", content), ErrNoTable.Error())
		}
	}
}

// TestH5ScalarIDs checks that an HDF5 file with a matrix, but a single id that is no array, is refused.
func TestH5ScalarIDs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.h5")
	files := fileSet{fs: osFS{}}
	defer files.discard()
	f, err := files.create(path, true)
	if err != nil {
		t.Fatal(err)
	}
	w, err := hdf5.NewWriter(hdf5File{f})
	if err != nil {
		t.Fatal(err)
	}
	id, err := w.String("P0")
	if err != nil {
		t.Fatal(err)
	}
	ids, err := w.Array(hdf5.String, nil, id[:])
	if err != nil {
		t.Fatal(err)
	}
	matrix, err := w.Array(hdf5.Float32, []int{1, 2}, make([]byte, 8))
	if err != nil {
		t.Fatal(err)
	}
	var root hdf5.Links
	if err := errors.Join(root.Add(h5IDs, ids), root.Add(h5Embeddings, matrix)); err != nil {
		t.Fatal(err)
	}
	if err := closeH5(w, &root, &Spec{}); err != nil {
		t.Fatal(err)
	}
	if _, err := files.commit(); err != nil {
		t.Fatal(err)
	}
	_, err = OpenTable(path)
	wantError(t, err, path, ErrNoTable.Error(), "ids in an array of shape []")
}

// smallParquet returns the content of a Parquet file with two records.
func smallParquet(t *testing.T) []byte {
	s := spec(t, Parquet, 33)
	return readFile(t, writeAll(t, s, makeRows(s, 2))[0].Path)
}

// TestDamagedParquet changes every third byte of a Parquet file, and the length of its footer. Reading the file must
// not panic.
func TestDamagedParquet(t *testing.T) {
	content := smallParquet(t)
	path := filepath.Join(t.TempDir(), "x.parquet")
	for i := 0; i < len(content); i += 3 {
		for _, bits := range []byte{1, 0x80} {
			damaged := slices.Clone(content)
			damaged[i] ^= bits
			if err := os.WriteFile(path, damaged, 0o666); err != nil {
				t.Fatal(err)
			}
			table, err := OpenTable(path)
			if err == nil {
				err = table.Read(func(*Row) error { return nil })
				table.Close()
			}
			if err != nil && !errors.Is(err, ErrNoTable) {
				t.Fatalf("byte %d: %v", i, err)
			}
		}
	}
	binary.LittleEndian.PutUint32(content[len(content)-8:], 1<<31)
	wantError(t, readError(t, "x.parquet", content), "a footer of 2147483648 bytes")
}

// TestPanicOfYield checks that a panic of the function that gets the rows of a Parquet file is not taken for a damaged
// file, neither in the first row nor in the last one, and that an error of that function is returned as it is.
func TestPanicOfYield(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.parquet")
	if err := os.WriteFile(path, smallParquet(t), 0o666); err != nil {
		t.Fatal(err)
	}
	for stop := 1; stop <= 2; stop++ {
		for _, panics := range []bool{true, false} {
			table, err := OpenTable(path)
			if err != nil {
				t.Fatal(err)
			}
			defer table.Close()
			cause, caught, count := errors.New("the cause"), any(nil), 0
			func() {
				defer func() { caught = recover() }()
				err = table.Read(func(*Row) error {
					if count++; count < stop {
						return nil
					}
					if panics {
						panic(cause)
					}
					return cause
				})
			}()
			if panics != (caught == cause) || !panics && err != cause {
				t.Errorf("row %d: panic %v, error %v", stop, caught, err)
			}
		}
	}
}

// TestParquetWithNumbersAsIDs checks that a Parquet file whose ids are no texts is refused, not read with empty ids.
func TestParquetWithNumbersAsIDs(t *testing.T) {
	var content bytes.Buffer
	w := parquet.NewGenericWriter[struct {
		ID     int64     `parquet:"id"`
		Values []float32 `parquet:"embeddings,list"`
	}](&content)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	wantError(t, readError(t, "x.parquet", content.Bytes()), "ids of type INT64: only text is read")
}

// TestSizesInHeaders checks that a .npy file, or an array in HDF5, whose header gives another shape than the bytes have
// is an error. Otherwise values would pass to other records.
func TestSizesInHeaders(t *testing.T) {
	for _, s := range []Spec{{Format: Npy}, {Format: H5, Matrix: true}} {
		s.Dir, s.Base, s.Model, s.Kind, s.Dim, s.Columns = t.TempDir(), "a", "m", Protein, 64, columnsOf([]int{0}, Mean)
		path := writeAll(t, s, makeRows(s, 55))[0].Path
		content := readFile(t, path)
		for name, change := range map[string][2]string{".npy": {"(55, 64)", "(55, 14)"}, ".h5": {"\x37\x00\x00\x00\x00\x00\x00\x00\x40\x00", "\x37\x00\x00\x00\x00\x00\x00\x00\x0e\x00"}} {
			if filepath.Ext(path) != name {
				continue
			}
			damaged := bytes.Replace(content, []byte(change[0]), []byte(change[1]), 1)
			if bytes.Equal(damaged, content) {
				t.Fatalf("%s: the shape is not found", name)
			}
			if err := readError(t, "x"+name, damaged); err == nil {
				t.Errorf("%s: another shape is not noticed", name)
			}
		}
	}
}

// TestParquetWithNulls checks that a null in place of an id or a value is an error.
func TestParquetWithNulls(t *testing.T) {
	type row struct {
		ID        *string    `parquet:"id,optional"`
		Embedding []*float32 `parquet:"embedding,list"`
	}
	id, value := "a", float32(1)
	for name, r := range map[string]row{"no null": {&id, []*float32{&value, &value}}, "id": {nil, []*float32{&value, &value}},
		"value": {&id, []*float32{nil, &value}}, "list": {&id, nil}} {
		var b bytes.Buffer
		if err := parquet.Write(&b, []row{{&id, []*float32{&value, &value}}, r}); err != nil {
			t.Fatal(err)
		}
		if err := readError(t, "x.parquet", b.Bytes()); (err == nil) != (name == "no null") {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// TestRecordsNamedAsColumns checks a safetensors file of tokens whose records have ids like the names of columns.
func TestRecordsNamedAsColumns(t *testing.T) {
	s := Spec{Dir: t.TempDir(), Base: "a", Model: "m", Kind: Protein, Format: Safetensors, Dim: 3, Columns: columnsOf([]int{0}, Tokens)}
	rows := makeRows(s, 2)
	for i := range rows {
		rows[i].ID, rows[i].Tokens, rows[i].Embeddings = []string{"embeddings", "embeddings_1"}[i], 2, [][]float32{{1, 2, 3, 4, 5, 6 + float32(i)}}
	}
	table, err := OpenTable(writeAll(t, s, rows)[0].Path)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	n := 0
	err = table.Read(func(r *Row) error {
		if !slices.Equal(r.Embeddings[0], rows[n].Embeddings[0]) || r.ID != rows[n].ID {
			t.Errorf("record %d is %+v", n, r)
		}
		n++
		return nil
	})
	if err != nil || n != 2 {
		t.Errorf("%d records, error %v", n, err)
	}
}

// TestPositionsOfTokens checks that a lost line of a TSV file of tokens is an error.
func TestPositionsOfTokens(t *testing.T) {
	const whole = "id\tposition\t0\na\t0\t1\na\t1\t2\na\t2\t3\na\t0\t4\nb\t0\t5\nb\t1\t6\n"
	if err := readError(t, "x.tsv", []byte(whole)); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"a\t1\t2\n", "b\t0\t5\n", "a\t0\t1\n"} {
		wantError(t, readError(t, "x.tsv", []byte(strings.Replace(whole, line, "", 1))), "position")
	}
}

// TestParquetDictionaries checks that a changed bit in the dictionary with the ids of residues is an error.
func TestParquetDictionaries(t *testing.T) {
	for _, compress := range []bool{false, true} {
		s := Spec{Dir: t.TempDir(), Base: "a", Model: "m", Kind: Nucleotide, Format: Parquet, Dim: 3, Columns: columnsOf([]int{0}, Residues), Compress: compress}
		path := writeAll(t, s, makeRows(s, 20))[0].Path
		content := readFile(t, path)
		if err := readError(t, "x.parquet", content); err != nil {
			t.Fatal(err)
		}
		file, err := parquet.OpenFile(bytes.NewReader(content), int64(len(content)))
		if err != nil {
			t.Fatal(err)
		}
		column := file.Metadata().RowGroups[0].Columns[0].MetaData
		if column.DictionaryPageOffset == 0 {
			t.Fatalf("the first column, %q, has no dictionary", column.PathInSchema)
		}
		content[column.DataPageOffset-1] ^= 1 // the last byte of the dictionary
		wantError(t, readError(t, "x.parquet", content), "checksum of the dictionary")
	}
}

// TestNoTokens checks that a safetensors file of the tokens of no record is read, and can be converted.
func TestNoTokens(t *testing.T) {
	s := Spec{Dir: t.TempDir(), Base: "a", Model: "m", Kind: Protein, Format: Safetensors, Dim: 3, Columns: columnsOf([]int{0}, Tokens)}
	table, err := OpenTable(writeAll(t, s, nil)[0].Path)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	if _, _, err := table.Convert(Spec{Format: TSV}, t.TempDir(), "x"); err != nil {
		t.Error(err)
	}
}
