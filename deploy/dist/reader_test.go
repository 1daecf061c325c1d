package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"seqembed/internal/half"
	"seqembed/internal/readback"
	"seqembed/internal/store"
)

// readerScript reads an array with the Python package seqembed for each argument "PATH|COLUMN". For each array it
// prints a line of JSON: shape and type of the array, its last 5,000 bytes, the number of ids, and the last 100 ids.
const readerScript = `
import json, sys
sys.path.insert(0, sys.argv[1])
sys.dont_write_bytecode = True
import seqembed
for arg in sys.argv[2:]:
    path, column = arg.split("|")
    ids, x = seqembed.read(path, column)
    print(json.dumps([list(x.shape), x.dtype.str, x.tobytes().hex()[-10000:], len(ids), ids[-100:]]))
`

// TestPythonReader checks that the Python package seqembed reads the files that package store writes: .npy and
// .safetensors files with several columns, in each number format, with ids of special characters, with a hundred
// thousand ids, and without records.
func TestPythonReader(t *testing.T) {
	columns := []store.Column{{Pooling: store.Mean, Layer: 0}, {Pooling: store.Max, Layer: 12}}
	ids := []string{"sp|P1|é蛋", "a\tb\x01c\u0085d\u2028", "%09", "%2501", "100%25", "%", `q"u\o'te`}
	var args, want []string
	add := func(dtype store.DType, format store.Format, ids []string) {
		s := store.Spec{Dir: t.TempDir(), Base: "sample.v1", Model: "esm2-8m", Kind: store.Protein, Format: format, Dim: 3,
			Columns: columns, DType: dtype, Meta: map[string]string{"model": "esm2-8m"}}
		bits := writeRows(t, s, ids)
		for c, col := range columns {
			column, path := fmt.Sprintf("embedding_%s_%d", col.Pooling, col.Layer), s.Paths()[0]
			if format == store.Npy {
				path = s.Paths()[c]
			}
			args = append(args, path+"|"+column)
			name := map[store.DType]string{store.FP32: "<f4", store.FP16: "<f2"}[dtype]
			tail := bits[c][max(0, len(bits[c])-10000):]
			line, _ := json.Marshal([]any{[]int{len(ids), 3}, name, tail, len(ids), ids[max(0, len(ids)-100):]})
			want = append(want, string(line))
		}
	}
	many := make([]string, 100_000)
	for i := range many {
		many[i] = "é" + strconv.Itoa(i)
	}
	for _, dtype := range store.DTypes() {
		add(dtype, store.Npy, ids)
		add(dtype, store.Safetensors, ids)
	}
	add(store.FP32, store.Safetensors, many)
	add(store.FP32, store.Npy, []string{})
	add(store.FP32, store.Safetensors, []string{})
	folder, err := filepath.Abs("../python")
	if err != nil {
		t.Fatal(err)
	}
	out := readback.Python(t, "numpy", readerScript, append([]string{folder}, args...)...)
	got := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	if len(got) != len(want) {
		t.Fatalf("%d lines, want %d", len(got), len(want))
	}
	for i := range want {
		if compact(t, got[i]) != compact(t, want[i]) {
			t.Errorf("%s is read as\n%.300s, want\n%.300s", args[i], got[i], want[i])
		}
	}
}

// compact returns JSON as encoding/json formats it, so that two texts can be compared.
func compact(t *testing.T, text string) string {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%.300s: %v", text, err)
	}
	b, _ := json.Marshal(v)
	return string(b)
}

// writeRows writes an output with a record for each id. It returns the bytes of each column's array in hexadecimal.
func writeRows(t *testing.T, s store.Spec, ids []string) []string {
	t.Helper()
	w, err := store.Create(s)
	if err != nil {
		t.Fatal(err)
	}
	bits := make([][]byte, len(s.Columns))
	for i, id := range ids {
		row := store.Row{ID: id, Length: 1, Tokens: 1, RecordLength: 1}
		for c := range s.Columns {
			values := make([]float32, s.Dim)
			for j := range values {
				values[j] = float32(math.Sin(float64(i*100 + c*10 + j)))
				if s.DType == store.FP16 {
					h := half.ToFP16(values[j])
					bits[c] = append(bits[c], byte(h), byte(h>>8))
					continue
				}
				b := math.Float32bits(values[j])
				bits[c] = append(bits[c], byte(b), byte(b>>8), byte(b>>16), byte(b>>24))
			}
			row.Embeddings = append(row.Embeddings, values)
		}
		if err := w.Write(row); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	text := make([]string, len(bits))
	for c, b := range bits {
		text[c] = hex.EncodeToString(b)
	}
	return text
}
