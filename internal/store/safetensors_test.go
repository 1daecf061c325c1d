package store

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"seqembed/internal/half"
)

type safetensor struct {
	DType   string `json:"dtype"`
	Shape   []int  `json:"shape"`
	Offsets [2]int `json:"data_offsets"`
	bytes   []byte
	values  []float32 // nil if the type of the tensor is not float32
}

// parseSafetensors reads a file according to the description of the format. Like the reference reader, it checks that
// the tensors cover the bytes after the header without gaps or overlaps.
func parseSafetensors(content []byte) (map[string]safetensor, map[string]string, error) {
	size := binary.LittleEndian.Uint64(content)
	if size%8 != 0 || size > uint64(len(content)-8) || content[8] != '{' {
		return nil, nil, fmt.Errorf("a header of %d bytes", size)
	}
	raw := make(map[string]json.RawMessage)
	if err := json.Unmarshal(content[8:8+size], &raw); err != nil {
		return nil, nil, err
	}
	var metadata map[string]string
	if err := json.Unmarshal(raw["__metadata__"], &metadata); err != nil {
		return nil, nil, err
	}
	delete(raw, "__metadata__")
	tensors := make(map[string]safetensor)
	for name, text := range raw {
		var tensor safetensor
		if err := json.Unmarshal(text, &tensor); err != nil {
			return nil, nil, err
		}
		tensors[name] = tensor
	}
	body := content[8+size:]
	end := 0
	byOffset := func(a, b string) int {
		x, y := tensors[a].Offsets, tensors[b].Offsets
		return slices.Compare(x[:], y[:])
	}
	for _, name := range slices.SortedFunc(maps.Keys(tensors), byOffset) {
		tensor := tensors[name]
		from, to := tensor.Offsets[0], tensor.Offsets[1]
		size := map[string]int{"F32": 4, "I32": 4, "F16": 2, "I64": 8, "U8": 1}[tensor.DType]
		bytes := size
		for _, n := range tensor.Shape {
			bytes *= n
		}
		// from%size must be 0, because PyTorch needs every tensor at a multiple of the size of its values.
		if from != end || to > len(body) || size == 0 || len(tensor.Shape) == 0 || to-from != bytes || from%size != 0 {
			return nil, nil, fmt.Errorf("tensor %q: %+v after byte %d of %d", name, tensor, end, len(body))
		}
		if tensor.bytes = body[from:to]; tensor.DType == "F32" {
			tensor.values = floatsOf(tensor.bytes)
		}
		tensors[name] = tensor
		end = to
	}
	if end != len(body) {
		return nil, nil, fmt.Errorf("%d bytes belong to no tensor", len(body)-end)
	}
	return tensors, metadata, nil
}

// checkMetadata checks that the metadata contains the ids of the rows and, besides them, exactly s.Meta.
func checkMetadata(t *testing.T, metadata map[string]string, s Spec, rows []Row) {
	t.Helper()
	want := []string{}
	for _, r := range rows {
		want = append(want, r.ID)
	}
	var ids []string
	if err := json.Unmarshal([]byte(metadata["ids"]), &ids); err != nil || !slices.Equal(ids, want) {
		t.Errorf("ids %q, %v", ids, err)
	}
	delete(metadata, "ids")
	if !reflect.DeepEqual(metadata, s.Meta) {
		t.Errorf("metadata %q, want %q", metadata, s.Meta)
	}
}

func TestSafetensorsHoldsOneTensorPerLayer(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine, and slow under the race detector")
	}
	for _, layers := range [][]int{{33}, {0, 7, 33}} {
		// 30,000 rows of 24 values are so large that the encoder moves and copies them in several chunks.
		for _, count := range []int{0, 1, 40, 30000} {
			s := spec(t, Safetensors, layers...)
			rows := makeRows(s, count)
			tensors, metadata, err := parseSafetensors(readFile(t, writeAll(t, s, rows)[0].Path))
			if err != nil {
				t.Fatal(err)
			}
			checkMetadata(t, metadata, s, rows)
			if len(tensors) != len(layers) {
				t.Errorf("%d tensors for %d layers", len(tensors), len(layers))
			}
			for l, name := range s.columnNames("embeddings") {
				tensor := tensors[name]
				if !slices.Equal(tensor.Shape, []int{count, s.Dim}) {
					t.Fatalf("%s: shape %v", name, tensor.Shape)
				}
				for i, r := range rows {
					if got := tensor.values[i*s.Dim : (i+1)*s.Dim]; !sameBits(got, r.Embeddings[l]) {
						t.Fatalf("%s, row %d: %v, want %v", name, i, got, r.Embeddings[l])
					}
				}
			}
		}
	}
}

func TestSafetensorsHoldsOneTensorPerRecord(t *testing.T) {
	for _, layers := range [][]int{{33}, {0, 33}} {
		for _, count := range []int{0, 1, 40} {
			s := spec(t, Safetensors)
			s.Columns = columnsOf(layers, Tokens)
			rows := makeRows(s, count)
			tensors, metadata, err := parseSafetensors(readFile(t, writeAll(t, s, rows)[0].Path))
			if err != nil {
				t.Fatal(err)
			}
			checkMetadata(t, metadata, s, rows)
			if len(tensors) != len(rows)*len(layers) {
				t.Errorf("%d tensors for %d records and %d layers", len(tensors), len(rows), len(layers))
			}
			for _, r := range rows {
				for l, suffix := range s.suffixes("_", "_") {
					tensor, ok := tensors[r.ID+suffix]
					if !ok || !slices.Equal(tensor.Shape, []int{r.Tokens, s.Dim}) || !sameBits(tensor.values, r.Embeddings[l]) {
						t.Errorf("record %q%s: %+v", r.ID, suffix, tensor)
					}
				}
			}
		}
	}
}

// manyRecords writes a safetensors file and returns its path. The parameter many is the number of records from which on
// the ids are in tensors, not in the header.
func manyRecords(t *testing.T, s Spec, rows []Row, many int) string {
	t.Helper()
	w, err := Create(s)
	if err != nil {
		t.Fatal(err)
	}
	w.(*output).tables[0].enc.(*safetensorsEncoder).many = many
	for _, r := range rows {
		if err := w.Write(r); err != nil {
			t.Fatal(err)
		}
	}
	files, err := w.Commit()
	if err != nil {
		t.Fatal(err)
	}
	return files[0].Path
}

// TestSafetensorsOfManyRecords checks that the ids of a safetensors file are in its header up to a number of records,
// and in tensors from that number on, and that OpenTable reads both.
func TestSafetensorsOfManyRecords(t *testing.T) {
	s := spec(t, Safetensors, 0, 33)
	s.Dim, s.DType = 3, FP16 // rows of 6 bytes, after which tensors of 8-byte values may not be aligned
	for _, count := range []int{39, 40, 3000} {
		rows := makeRows(s, count)
		var want, ids []string
		for _, r := range rows {
			want = append(want, r.ID)
		}
		path := manyRecords(t, s, rows, 40)
		tensors, metadata, err := parseSafetensors(readFile(t, path))
		if err != nil {
			t.Fatal(err)
		}
		text, ends := tensors["ids"].bytes, tensors["ids_offsets"].bytes
		if listed := metadata["ids"] != ""; listed != (count < 40) || listed != (text == nil) || listed != (ends == nil) {
			t.Fatalf("%d records: ids in the metadata: %v, tensors of %d and %d bytes", count, listed, len(text), len(ends))
		}
		for ; len(ends) >= 16; ends = ends[8:] {
			ids = append(ids, string(text[binary.LittleEndian.Uint64(ends):binary.LittleEndian.Uint64(ends[8:])]))
		}
		read, _, values, table := readAll(t, path)
		if !slices.Equal(read, want) || ids != nil && !slices.Equal(ids, want) || !slices.Equal(tensors["embeddings_33"].Shape, []int{count, 3}) {
			t.Errorf("%d records: %d ids, %d read back, or others, tensor of %v", count, len(ids), len(read), tensors["embeddings_33"].Shape)
		}
		if len(table.Columns) != 2 || !maps.Equal(table.Meta, s.Meta) {
			t.Errorf("%d records: columns %v, metadata %q", count, table.Columns, table.Meta)
		}
		for i, row := range values {
			for c, e := range rows[i].Embeddings {
				for j, v := range e {
					if got := row[c][j]; half.ToFP16(got) != half.ToFP16(v) {
						t.Fatalf("%d records: row %d, column %d, value %d is %v, want %v", count, i, c, j, got, v)
					}
				}
			}
		}
	}
}

// TestSafetensorsWithDamagedIDs checks that OpenTable refuses a safetensors file if the tensors of its ids are damaged.
func TestSafetensorsWithDamagedIDs(t *testing.T) {
	s := spec(t, Safetensors, 33)
	path := manyRecords(t, s, makeRows(s, 40), 40)
	content := readFile(t, path)
	if ids, _, _, _ := readAll(t, path); len(ids) != 40 {
		t.Fatalf("%d ids", len(ids))
	}
	body := 8 + int(binary.LittleEndian.Uint64(content))
	for _, change := range []func(b []byte){
		func(b []byte) { b[body] = 1 },      // the first id does not begin at 0
		func(b []byte) { b[body+8+7] = 1 },  // the first id ends after the text of all ids
		func(b []byte) { b[body+80] = 255 }, // id 9 ends after the end of id 10
		func(b []byte) { copy(b[bytes.Index(b, []byte(`"shape":[41]`)):], `"shape":[-1]`) },
		func(b []byte) { copy(b[bytes.Index(b, []byte(`"shape":[41]`)):], `"shape":[40]`) },
	} {
		damaged := slices.Clone(content)
		change(damaged)
		if err := os.WriteFile(path, damaged, 0o666); err != nil {
			t.Fatal(err)
		}
		_, err := OpenTable(path)
		wantError(t, err, path, "ids")
	}
}

// TestSafetensorsWithoutIDs checks that OpenTable reads a safetensors file without ids, and refuses one with fewer ids
// than rows.
func TestSafetensorsWithoutIDs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "matrix.safetensors")
	for metadata, wrong := range map[string]string{`{}`: "", `{"ids":"[\"a\",\"b\"]"}`: "2 ids"} {
		header := `{"__metadata__":` + metadata + `,"embeddings":{"dtype":"F32","shape":[3,2],"data_offsets":[0,24]}}`
		file := append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...)
		if err := os.WriteFile(path, append(file, make([]byte, 24)...), 0o666); err != nil {
			t.Fatal(err)
		}
		if wrong != "" {
			_, err := OpenTable(path)
			wantError(t, err, path, wrong, "3 rows")
			continue
		}
		if ids, _, _, table := readAll(t, path); table.IDs || len(ids) != 3 || len(table.Columns) != 1 || table.Columns[0].Pooling != Mean {
			t.Errorf("ids %q, columns %v", ids, table.Columns)
		}
	}
}

// TestArraysPerRecordNeedDistinctNames checks that a second record with the same id is refused in .npz and safetensors
// files of tokens, where each array is named after the id of its record.
func TestArraysPerRecordNeedDistinctNames(t *testing.T) {
	for _, format := range []Format{Npy, Safetensors} {
		s := spec(t, format)
		s.Columns = columnsOf([]int{33}, Tokens)
		rows := makeRows(s, 8)
		w, err := Create(s)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			if err := w.Write(r); err != nil {
				t.Fatal(err)
			}
		}
		err = w.Write(rows[5])
		wantError(t, err, fmt.Sprintf("%q", rows[5].ID), "earlier record")
		if !errors.Is(err, ErrRecord) {
			t.Errorf("%v is not ErrRecord", err)
		}
		if format == Safetensors {
			reserved := rows[5]
			reserved.ID = "__metadata__"
			wantError(t, w.Write(reserved), "__metadata__")
		}
		if _, err := w.Commit(); err != nil {
			t.Fatal(err)
		}
		checked := rows
		if format == Npy {
			checkIDList(t, s.Paths()[1], checked)
			continue
		}
		_, metadata, err := parseSafetensors(readFile(t, s.Paths()[0]))
		if err != nil {
			t.Fatal(err)
		}
		checkMetadata(t, metadata, s, checked)
	}
}

// TestSafetensorsHeaderIsBounded checks that writing a safetensors file fails as soon as the header exceeds its limit,
// which the test sets to 20,000 bytes, and that no file is left.
func TestSafetensorsHeaderIsBounded(t *testing.T) {
	for _, pooling := range []Pooling{Residues, Tokens} {
		s := spec(t, Safetensors)
		s.Columns = columnsOf([]int{33}, pooling)
		w, err := Create(s)
		if err != nil {
			t.Fatal(err)
		}
		const limit = 20_000
		w.(*output).tables[0].enc.(*safetensorsEncoder).limit = limit
		written := 0
		for i := range limit {
			r := makeRows(s, 2)[1]
			r.ID = fmt.Sprintf("a_rather_long_record_name_%d", i)
			if err = w.Write(r); err != nil {
				break
			}
			written++
		}
		wantError(t, err, s.Paths()[0], "20000 bytes", "use parquet")
		if errors.Is(err, ErrRecord) || !errors.Is(err, ErrFormat) {
			t.Errorf("%v concerns the output, not a record", err)
		}
		if written < 10 {
			t.Errorf("stopped after %d records", written)
		}
		if left := filesIn(t, s.Dir); left != nil {
			t.Errorf("left %q", left)
		}
		if _, again := w.Commit(); again != err {
			t.Errorf("Commit returned %v, want the first error", again)
		}
	}
}
