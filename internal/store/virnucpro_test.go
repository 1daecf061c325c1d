package store

import (
	"archive/zip"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"seqembed/weights"
)

// loadTorch reads a PyTorch file with package weights, which has the reader of PyTorch files for this program.
func loadTorch(t *testing.T, path string) map[any]any {
	t.Helper()
	value, closeFile, err := weights.LoadPickle(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeFile() })
	object, ok := value.(map[any]any)
	if !ok {
		t.Fatalf("%s contains a %T", path, value)
	}
	return object
}

// checkIDs checks that a list contains the ids of the rows.
func checkIDs(t *testing.T, list any, rows []Row) {
	t.Helper()
	var want []any
	for _, r := range rows {
		want = append(want, r.ID)
	}
	if ids, ok := list.(*[]any); !ok || !slices.Equal(*ids, want) {
		t.Errorf("ids %q, want %q", list, want)
	}
}

func TestVirNucProNucleotides(t *testing.T) {
	for _, count := range []int{0, 1, 40} {
		s := spec(t, VirNucPro, 12)
		s.Kind, s.Model = Nucleotide, "DNABERT_S"
		rows := makeRows(s, count)
		path := writeAll(t, s, rows)[0].Path
		if name := filepath.Base(path); name != "sample.A_DNABERT_S.pt" {
			t.Errorf("the file is called %q", name)
		}
		object := loadTorch(t, path)
		checkIDs(t, object["nucleotide"], rows)
		data, ok := object["data"].(*[]any)
		if !ok || len(*data) != count || len(object) != 2 {
			t.Fatalf("%d records, keys %v", len(*data), object)
		}
		for i, r := range rows {
			record := (*data)[i].(map[any]any)
			if record["label"] != r.ID || len(record) != 2 {
				t.Errorf("record %d: %v", i, record)
			}
			var values []float32
			for _, v := range *record["mean_representation"].(*[]any) {
				wide := v.(float64)
				if float64(float32(wide)) != wide {
					t.Errorf("%v is not a float32", wide)
				}
				values = append(values, float32(wide))
			}
			if !sameBits(values, r.Embeddings[0]) {
				t.Errorf("record %d: %v, want %v", i, values, r.Embeddings[0])
			}
		}
	}
}

func TestVirNucProProteins(t *testing.T) {
	// A pickle stores a number below 2³¹ in one, two or four bytes. 300 records and 300 values need two bytes, and 70,000
	// values need four.
	for _, c := range []struct{ count, dim int }{{0, 24}, {1, 300}, {300, 24}, {2, 70_000}} {
		s := spec(t, VirNucPro, 33)
		s.Dim, s.Model = c.dim, "ESM"
		rows := makeRows(s, c.count)
		path := writeAll(t, s, rows)[0].Path
		if name := filepath.Base(path); name != "sample.A_ESM.pt" {
			t.Errorf("the file is called %q", name)
		}
		object := loadTorch(t, path)
		checkIDs(t, object["proteins"], rows)
		data, ok := object["data"].(*[]any)
		if !ok || len(*data) != c.count || len(object) != 2 {
			t.Fatalf("%d records, keys %v", len(*data), object)
		}
		for i, r := range rows {
			tensor := (*data)[i].(*weights.Tensor)
			if !slices.Equal(tensor.Shape(), []int{c.dim}) {
				t.Errorf("record %d: shape %v", i, tensor.Shape())
			}
			values, err := tensor.Float32s()
			if err != nil {
				t.Fatal(err)
			}
			if !sameBits(values, r.Embeddings[0]) {
				t.Errorf("record %d: %v, want %v", i, values[:4], r.Embeddings[0][:4])
			}
		}
	}
}

// TestVirNucProArchive checks the layout that PyTorch requires: uncompressed entries, all in one folder, and storages
// at multiples of 64 bytes.
func TestVirNucProArchive(t *testing.T) {
	for _, kind := range []Kind{Nucleotide, Protein} {
		s := spec(t, VirNucPro, 12)
		s.Kind = kind
		archive, err := zip.OpenReader(writeAll(t, s, makeRows(s, 20))[0].Path)
		if err != nil {
			t.Fatal(err)
		}
		defer archive.Close()
		small := make(map[string]bool)
		storages := 0
		for _, entry := range archive.File {
			name, ok := strings.CutPrefix(entry.Name, "archive/")
			if !ok || entry.Method != zip.Store {
				t.Errorf("entry %q, method %d", entry.Name, entry.Method)
			}
			small[name] = true
			if !strings.HasPrefix(name, "data/") {
				continue
			}
			storages++
			if offset, err := entry.DataOffset(); err != nil || offset%64 != 0 {
				t.Errorf("%s starts at %d, %v", name, offset, err)
			}
		}
		if want := 20 * int(kind); storages != want {
			t.Errorf("%v: %d storages, want %d", kind, storages, want)
		}
		for _, name := range []string{"data.pkl", "version", "byteorder"} {
			if !small[name] {
				t.Errorf("%v: no entry %q", kind, name)
			}
		}
	}
}

// TestVirNucProMatchesPublishedFiles checks that outputs have the same keys and types as files that the program
// VirNucPro itself has written.
func TestVirNucProMatchesPublishedFiles(t *testing.T) {
	folder := filepath.Join("..", "..", "..", "shared", "goldens", "published", "virnucpro")
	if found, _ := filepath.Glob(filepath.Join(folder, "output_1_*.pt")); len(found) == 0 {
		t.Skip("../shared/goldens/published/virnucpro does not exist")
	}
	for _, kind := range []Kind{Nucleotide, Protein} {
		s := spec(t, VirNucPro, 12)
		s.Kind, s.Base, s.Model = kind, "output_1", [...]string{Nucleotide: "DNABERT_S", Protein: "ESM"}[kind]
		path := writeAll(t, s, makeRows(s, 1))[0].Path
		want := outline(loadTorch(t, filepath.Join(folder, filepath.Base(path))))
		if got := outline(loadTorch(t, path)); got != want {
			t.Errorf("%v: %s, published %s", kind, got, want)
		}
	}
}

// outline describes the keys and types in a value that was read from a pickle. Of a list it describes only the first
// element.
func outline(value any) string {
	switch v := value.(type) {
	case map[any]any:
		var keys []string
		for key, item := range v {
			keys = append(keys, fmt.Sprint(key)+": "+outline(item))
		}
		slices.Sort(keys)
		return "{" + strings.Join(keys, ", ") + "}"
	case *[]any:
		if len(*v) == 0 {
			return "[]"
		}
		return "[" + outline((*v)[0]) + "]"
	case *weights.Tensor:
		return strings.Repeat("dimension ", len(v.Shape())) + "tensor"
	case string:
		return "text"
	case float64:
		return "float"
	}
	return "something else"
}
