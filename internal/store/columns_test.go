package store

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestTablesEqualThoseWrittenAlone writes one output with columns of all three kinds of rows: records, residues and
// tokens. The files for each kind must have the bytes of an output that has only the columns of that kind.
func TestTablesEqualThoseWrittenAlone(t *testing.T) {
	for _, format := range []Format{Parquet, Npy, Safetensors} {
		for _, windows := range []bool{false, true} {
			s := spec(t, format)
			s.Kind, s.Windows = Nucleotide, windows
			s.Columns = []Column{{Tokens, 2}, {Mean, 2}, {Residues, 2}, {Max, 2}, {Tokens, 0}, {Mean, 0}, {Residues, 0}, {Max, 0}}
			rows := makeRows(s, 40)
			together := writeAll(t, s, rows)
			for _, kind := range [][]Pooling{{Mean, Max}, {Residues}, {Tokens}} {
				alone := spec(t, format)
				alone.Kind, alone.Windows = s.Kind, windows
				part := slices.Clone(rows)
				for i := range part {
					part[i].Embeddings = nil
				}
				for c, column := range s.Columns {
					if !slices.Contains(kind, column.Pooling) {
						continue
					}
					alone.Columns = append(alone.Columns, column)
					for i := range part {
						part[i].Embeddings = append(part[i].Embeddings, rows[i].Embeddings[c])
					}
				}
				for _, f := range writeAll(t, alone, part) {
					if together[0].SHA256 != f.SHA256 || together[0].Size != f.Size {
						t.Errorf("%s, windows %v: %s differs from %s", format, windows, together[0].Path, filepath.Base(f.Path))
					}
					together = together[1:]
				}
			}
			if len(together) > 0 {
				t.Errorf("%s: more files: %v", format, together)
			}
		}
	}
}

func TestColumnsAreToldApart(t *testing.T) {
	for _, c := range []struct {
		columns []Column
		want    []string
	}{
		{columnsOf([]int{33}, Max), []string{"embedding"}},
		{columnsOf([]int{33, 0}, Mean), []string{"embedding_33", "embedding_0"}},
		{columnsOf([]int{33}, Mean, CLS), []string{"embedding_mean", "embedding_cls"}},
		{columnsOf([]int{33, 0}, Mean, CLS), []string{"embedding_mean_33", "embedding_mean_0", "embedding_cls_33", "embedding_cls_0"}},
	} {
		s := Spec{Columns: c.columns}
		if got := s.columnNames("embedding"); !slices.Equal(got, c.want) {
			t.Errorf("%v: %q, want %q", c.columns, got, c.want)
		}
	}
}

// TestResiduesHaveTheirLetters checks that Parquet, NumPy and safetensors files have the first and the last letter of
// each residue of DNA. For residues of proteins, only Parquet files have these letters.
func TestResiduesHaveTheirLetters(t *testing.T) {
	for _, kind := range []Kind{Nucleotide, Protein} {
		for _, format := range []Format{Parquet, Npy, Safetensors} {
			s := spec(t, format)
			s.Kind, s.Columns = kind, columnsOf([]int{33}, Residues)
			rows := makeRows(s, 40)
			path := writeAll(t, s, rows)[0].Path
			var got map[string][]Letters
			switch format {
			case Parquet:
				got = lettersInParquet(t, path)
			case Npy:
				got = lettersInNpz(t, path)
			default:
				got = lettersInSafetensors(t, path)
			}
			for _, r := range rows {
				id, want := r.ID, r.Residues
				if format == Npy {
					id = EscapeName(id)
				}
				if kind == Protein && format != Parquet {
					want = nil
				}
				if !slices.Equal(got[id], want) {
					t.Errorf("%v, %s, record %q: %v, want %v", kind, format, id, got[id], want)
				}
			}
		}
	}
}

func lettersInParquet(t *testing.T, path string) map[string][]Letters {
	table, found := readParquet(t, path), map[string][]Letters{}
	for i := range table.values["id"] {
		cell := func(column string) int32 { return int32(table.values[column][i][0].Int64()) }
		id := table.values["id"][i][0].String()
		found[id] = append(found[id], Letters{cell("start"), cell("end")})
	}
	return found
}

func lettersInNpz(t *testing.T, path string) map[string][]Letters {
	content, found := readFile(t, path), map[string][]Letters{}
	archive, err := zip.NewReader(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range archive.File {
		id, ok := strings.CutSuffix(entry.Name, lettersSuffix+".npy")
		if !ok {
			continue
		}
		stream, err := entry.Open()
		if err != nil {
			t.Fatal(err)
		}
		array, err := io.ReadAll(stream)
		if err != nil {
			t.Fatal(err)
		}
		if want := string(npyHeader("<i4", (len(array)-npyHeaderSize)/8, 2)); string(array[:npyHeaderSize]) != want {
			t.Errorf("%s: header %q, want %q", entry.Name, array[:npyHeaderSize], want)
		}
		found[id] = parseLetters(array[npyHeaderSize:])
	}
	return found
}

func lettersInSafetensors(t *testing.T, path string) map[string][]Letters {
	tensors, _, err := parseSafetensors(readFile(t, path))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]Letters{}
	for name, tensor := range tensors {
		if id, ok := strings.CutSuffix(name, lettersSuffix); ok {
			if tensor.DType != "I32" {
				t.Errorf("%s is %s", name, tensor.DType)
			}
			found[id] = parseLetters(tensor.bytes)
		}
	}
	return found
}

func parseLetters(b []byte) (list []Letters) {
	for pair := range slices.Chunk(b, 8) {
		list = append(list, Letters{int32(binary.LittleEndian.Uint32(pair)), int32(binary.LittleEndian.Uint32(pair[4:]))})
	}
	return list
}
