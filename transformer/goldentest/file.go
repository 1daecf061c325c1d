package goldentest

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// File is a safetensors file in memory that contains goldens, the expected results of tests. This package parses it
// itself, so that the expected results do not depend on package weights, the reader of checkpoints.
type File struct {
	tensors  map[string]json.RawMessage
	values   []byte
	Metadata map[string]string
}

// Read parses a file. It panics if data is not a safetensors file.
func Read(data []byte) File {
	end := 8 + binary.LittleEndian.Uint64(data)
	f := File{values: data[end:]}
	decode(data[8:end], &f.tensors)
	decode(f.tensors["__metadata__"], &f.Metadata)
	return f
}

// Records returns the sorted ids of the records, which have tensors called ID/ids.
func (f File) Records() (ids []string) {
	for _, name := range slices.Sorted(maps.Keys(f.tensors)) {
		if id, ok := strings.CutSuffix(name, "/ids"); ok {
			ids = append(ids, id)
		}
	}
	return ids
}

// Int32s returns the values of an I32 tensor, or nil if there is none.
func (f File) Int32s(name string) []int32 { return read[int32](f, name, "I32") }

// Float32s returns the values of an F32 tensor, or nil if there is none.
func (f File) Float32s(name string) []float32 { return read[float32](f, name, "F32") }

func read[T int32 | float32](f File, name, dtype string) []T {
	var entry struct {
		DType   string
		Offsets [2]int `json:"data_offsets"`
	}
	if f.tensors[name] == nil {
		return nil
	}
	if decode(f.tensors[name], &entry); entry.DType != dtype {
		panic(name + " is stored as " + entry.DType + ", not as " + dtype)
	}
	b := f.values[entry.Offsets[0]:entry.Offsets[1]]
	values := make([]T, len(b)/4)
	if err := binary.Read(bytes.NewReader(b), binary.LittleEndian, values); err != nil {
		panic(err)
	}
	return values
}

func decode(text []byte, value any) {
	if err := json.Unmarshal(text, value); err != nil {
		panic(err)
	}
}
