package store

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"io"
	"math"
	"os"
	"slices"
	"testing"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"

	"seqembed/internal/half"
)

// TestFloat16 writes float16 values per record and per residue in three formats. Their bits must be those that package
// half computes, and values out of range must be counted.
func TestFloat16(t *testing.T) {
	for _, f := range []Format{Parquet, Npy, Safetensors} {
		for _, pooling := range []Pooling{Mean, Residues} {
			s := spec(t, f)
			s.DType, s.Columns = FP16, columnsOf([]int{0, 33}, pooling)
			rows := makeRows(s, 40)
			w, err := Create(s)
			if err != nil {
				t.Fatal(err)
			}
			var want [2][]uint16
			overflows := int64(0)
			for _, r := range rows {
				if err := w.Write(r); err != nil {
					t.Fatal(err)
				}
				for c, e := range r.Embeddings {
					for _, v := range e {
						want[c] = append(want[c], half.ToFP16(v))
						if math.IsInf(float64(half.FromFP16(half.ToFP16(v))), 0) {
							overflows++
						}
					}
				}
			}
			if got := w.Overflows(); got != overflows || got == 0 {
				t.Errorf("%s, %s: %d overflows, want %d", f, pooling, got, overflows)
			}
			files, err := w.Commit()
			if err != nil {
				t.Fatal(err)
			}
			for c := range want {
				var got []uint16
				switch {
				case f == Parquet:
					got = halvesInParquet(t, files[0].Path, s.columnNames("embedding")[c])
				case f == Npy && pooling == Mean:
					got = halvesInNpy(t, readFile(t, files[c].Path), len(rows), s.Dim)
				case f == Npy:
					got = halvesInNpz(t, files[c].Path, rows, s.Dim)
				default:
					got = halvesInSafetensors(t, files[0].Path, s, c, rows)
				}
				if !slices.Equal(got, want[c]) {
					t.Errorf("%s, %s, column %d: %d values, want %d others", f, pooling, c, len(got), len(want[c]))
				}
			}
		}
	}
	s := spec(t, VirNucPro, 33)
	s.DType = FP16
	_, err := Create(s)
	wantError(t, err, "virnucpro", "float32")
}

func halvesOf(b []byte) (values []uint16) {
	for pair := range slices.Chunk(b, 2) {
		values = append(values, binary.LittleEndian.Uint16(pair))
	}
	return values
}

func halvesInNpy(t *testing.T, content []byte, rows, dim int) []uint16 {
	if want := string(npyHeader("<f2", rows, dim)); string(content[:npyHeaderSize]) != want {
		t.Errorf("header %q, want %q", content[:npyHeaderSize], want)
	}
	return halvesOf(content[npyHeaderSize:])
}

func halvesInNpz(t *testing.T, path string, rows []Row, dim int) (values []uint16) {
	content := readFile(t, path)
	archive, err := zip.NewReader(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	for i, entry := range archive.File {
		stream, err := entry.Open()
		if err != nil {
			t.Fatal(err)
		}
		array, err := io.ReadAll(stream)
		if err != nil {
			t.Fatal(err)
		}
		values = append(values, halvesInNpy(t, array, len(rows[i].Residues), dim)...)
	}
	return values
}

func halvesInSafetensors(t *testing.T, path string, s Spec, column int, rows []Row) (values []uint16) {
	tensors, _, err := parseSafetensors(readFile(t, path))
	if err != nil {
		t.Fatal(err)
	}
	names := s.columnNames("embeddings")[column : column+1]
	if s.Columns[0].Pooling == Residues {
		names = nil
		for _, r := range rows {
			names = append(names, r.ID+s.suffixes("_", "_")[column])
		}
	}
	for _, name := range names {
		tensor := tensors[name]
		if tensor.DType != "F16" {
			t.Errorf("%s is %q", name, tensor.DType)
		}
		values = append(values, halvesOf(tensor.bytes)...)
	}
	return values
}

// halvesInParquet returns the float16 values of a Parquet column. It also checks the logical type of the column, and
// that the column has no minimum and maximum, which parquet-go would compute from the bytes instead of the values.
func halvesInParquet(t *testing.T, path, column string) (values []uint16) {
	table := readParquet(t, path)
	for _, row := range table.values[column] {
		for _, v := range row {
			if !v.IsNull() { // an empty list has a null as its only value
				values = append(values, halvesOf(v.ByteArray())...)
			}
		}
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	file, err := parquet.OpenFile(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	leaf, ok := file.Schema().Lookup(column, "list", "element")
	if !ok {
		t.Fatalf("no column %s", column)
	}
	for _, e := range file.Metadata().Schema {
		_, annotated := e.LogicalType.Value.(*format.Float16Type)
		if half := e.Type.Valid && e.Type.V == format.FixedLenByteArray; half != annotated {
			t.Errorf("%s is annotated as %v", e.Name, e.LogicalType.Value)
		}
	}
	for _, group := range file.Metadata().RowGroups {
		if s := group.Columns[leaf.ColumnIndex].MetaData.Statistics; s.MinValue != nil || s.MaxValue != nil || s.Min != nil || s.Max != nil {
			t.Errorf("%s has bounds %v, %v", column, s.MinValue, s.MaxValue)
		}
	}
	for i, index := range file.ColumnIndexes() {
		if i%len(file.Metadata().RowGroups[0].Columns) == leaf.ColumnIndex && slices.ContainsFunc(index.MinValues, func(b []byte) bool { return len(b) > 0 }) {
			t.Errorf("%s has bounds of pages: %v", column, index.MinValues)
		}
	}
	return values
}
