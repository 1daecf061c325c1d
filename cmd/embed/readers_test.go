package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"

	"seqembed/kernels"
	"seqembed/kernels/cpu"
	"seqembed/transformer"
	"seqembed/weights"
)

// The functions in this file read outputs and compute their expected content.

type parquetRow struct {
	ID          string `parquet:"id"`
	Description string `parquet:"description"`
	Length      int64  `parquet:"length"`
	Tokens      int64  `parquet:"tokens"`
	Truncated   bool   `parquet:"truncated"`

	RecordLength int64     `parquet:"record_length"`
	Embedding    []float32 `parquet:"embedding,list"`
}

// readParquet reads rows with the layout of T.
func readParquet[T any](t testing.TB, path string) []T {
	t.Helper()
	rows, err := parquet.ReadFile[T](path)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return rows
}

// parquetFile opens a file to read its schema and metadata.
func parquetFile(t testing.TB, path string) *parquet.File {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := parquet.OpenFile(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// readNpy reads a float32 array from one file and the ids of its rows from another.
func readNpy(t testing.TB, array, list string) (ids []string, rows [][]float32) {
	t.Helper()
	content, err := os.ReadFile(array)
	if err != nil {
		t.Fatal(err)
	}
	header := 10 + int(binary.LittleEndian.Uint16(content[8:]))
	_, shape, _ := strings.Cut(string(content[:header]), "'shape': (")
	var n, dim int
	if _, err := fmt.Sscanf(shape, "%d, %d)", &n, &dim); err != nil {
		t.Fatalf("header %q: %v", content[:header], err)
	}
	values := make([]float32, n*dim)
	if err := binary.Read(bytes.NewReader(content[header:]), binary.LittleEndian, values); err != nil {
		t.Fatal(err)
	}
	for row := range slices.Chunk(values, dim) {
		rows = append(rows, row)
	}
	text, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(text)), rows
}

// readSafetensors returns the tensors, each divided into rows, and the metadata.
func readSafetensors(t testing.TB, path string) (tensors map[string][][]float32, metadata map[string]string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var header struct {
		Metadata map[string]string `json:"__metadata__"`
	}
	if err := json.Unmarshal(content[8:8+binary.LittleEndian.Uint64(content)], &header); err != nil {
		t.Fatal(err)
	}
	c, err := weights.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	tensors = make(map[string][][]float32)
	for _, name := range c.Names() {
		tensor, _ := c.Tensor(name)
		values, err := tensor.Float32s()
		if err != nil {
			t.Fatal(err)
		}
		shape := tensor.Shape()
		for row := range slices.Chunk(values, shape[len(shape)-1]) {
			tensors[name] = append(tensors[name], row)
		}
	}
	return tensors, header.Metadata
}

// readTorch reads a file of PyTorch, as torch.load does.
func readTorch(t testing.TB, path string) map[any]any {
	t.Helper()
	value, closeFile, err := weights.LoadPickle(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeFile() })
	return value.(map[any]any)
}

// reference embeds one sequence alone, without package pool. It returns the values of each layer.
func reference(t testing.TB, model, seq string, pooling transformer.Pooling, layers ...int) [][]float32 {
	t.Helper()
	checkpoint, err := transformer.Families.Open(model)
	if err != nil {
		t.Fatal(err)
	}
	defer checkpoint.Close()
	backend := cpu.New(1)
	defer backend.Close()
	loaded, err := transformer.Load(checkpoint, backend)
	if err != nil {
		t.Fatal(err)
	}
	defer loaded.Close()
	ids, _ := checkpoint.Config.Family.NewTokenizer().Append(nil, []byte(seq))
	encoder, err := transformer.NewEncoder(loaded, backend, kernels.Limits{Tokens: len(ids), Sequences: 1}, transformer.Columns(layers, pooling))
	if err != nil {
		t.Fatal(err)
	}
	defer encoder.Close()
	var batch kernels.Batch
	batch.Append(ids)
	result, err := encoder.Encode(batch)
	if err != nil {
		t.Fatal(err)
	}
	return result
}
