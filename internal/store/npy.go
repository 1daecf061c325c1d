package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// npyHeaderSize is the size in bytes of every header written here: enough for two dimensions of 20 digits, and a
// multiple of the 64 that NumPy aligns its data to.
const npyHeaderSize = 128

// npyHeader returns the header, version 1.0, of a float32 array in C order
// (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html).
func npyHeader(rows, dim int) []byte {
	const magic = "\x93NUMPY\x01\x00"
	dict := fmt.Sprintf("{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d), }", rows, dim)
	header := make([]byte, 0, npyHeaderSize)
	header = append(header, magic...)
	header = binary.LittleEndian.AppendUint16(header, npyHeaderSize-uint16(len(magic))-2)
	header = append(header, dict...)
	header = append(header, strings.Repeat(" ", npyHeaderSize-1-len(header))...)
	return append(header, '\n')
}

// idList is the text file of ids, one a line, that goes with arrays.
type idList struct{ file *atomicFile }

func (l idList) add(id string) error {
	if _, err := l.file.WriteString(oneLine(id)); err != nil {
		return err
	}
	_, err := l.file.WriteString("\n")
	return err
}

// npyEncoder writes one array [records, dim] per layer. The number of records is known at the end, so the header is
// written twice.
type npyEncoder struct {
	dim    int
	rows   int
	arrays []*atomicFile // one per layer
	ids    idList
	floats floatWriter
}

func newNpyEncoder(s *Spec, files *fileSet) (*npyEncoder, error) {
	paths := s.Paths()
	e := &npyEncoder{dim: s.Dim}
	for _, path := range paths[:len(s.Layers)] {
		array, err := files.create(path, true)
		if err != nil {
			return nil, err
		}
		if _, err := array.Write(npyHeader(0, s.Dim)); err != nil {
			return nil, err
		}
		e.arrays = append(e.arrays, array)
	}
	ids, err := files.create(paths[len(s.Layers)], false)
	e.ids.file = ids
	return e, err
}

func (e *npyEncoder) add(r *Row) error {
	for i, array := range e.arrays {
		if err := e.floats.write(array, r.Embeddings[i]); err != nil {
			return err
		}
	}
	e.rows++
	return e.ids.add(r.ID)
}

func (e *npyEncoder) finish() error {
	for _, array := range e.arrays {
		if err := array.writeAt(npyHeader(e.rows, e.dim), 0); err != nil {
			return err
		}
	}
	return nil
}

// npzEncoder writes per-token embeddings: one archive per layer, with one array [tokens, dim] per record. The array is
// called by the record's id, escaped by EscapeName because unpacking the archive turns it into a file name. The text
// file holds the plain ids in the order of the arrays.
//
// The archive's directory stays in memory until the end: some 300 bytes per record.
type npzEncoder struct {
	dim      int
	archives []*zipArchive // one per layer
	ids      idList
	names    map[string]struct{}
	floats   floatWriter
}

func newNpzEncoder(s *Spec, files *fileSet) (*npzEncoder, error) {
	paths := s.Paths()
	e := &npzEncoder{dim: s.Dim, names: make(map[string]struct{})}
	for _, path := range paths[:len(s.Layers)] {
		f, err := files.create(path, false)
		if err != nil {
			return nil, err
		}
		e.archives = append(e.archives, newZipArchive(f))
	}
	ids, err := files.create(paths[len(s.Layers)], false)
	e.ids.file = ids
	return e, err
}

func (e *npzEncoder) add(r *Row) error {
	name := EscapeName(r.ID)
	if _, ok := e.names[name]; ok {
		return &recordError{r.ID, errSecondOfName}
	}
	e.names[name] = struct{}{}
	for i, archive := range e.archives {
		entry, err := archive.stream(name + ".npy")
		if err != nil {
			return err
		}
		if _, err := entry.Write(npyHeader(r.Tokens, e.dim)); err != nil {
			return err
		}
		if err := e.floats.write(entry, r.Embeddings[i]); err != nil {
			return err
		}
	}
	return e.ids.add(r.ID)
}

func (e *npzEncoder) finish() error {
	for _, archive := range e.archives {
		if err := archive.close(); err != nil {
			return err
		}
	}
	return nil
}

// errSecondOfName is the cause of the error for a record whose array would hide that of an earlier one.
var errSecondOfName = errors.New("its id is that of an earlier record, and npy and safetensors call each record's array by its id")
