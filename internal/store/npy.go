package store

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// Npy is a NumPy file for each column, and a text file of ids. A column of residues or tokens is an .npz file instead,
// with an array of embeddings for each record.
const Npy Format = "npy"

func npyNames(s *Spec, stem string) (names []string) {
	ext := ".npy"
	if !s.perRecord() {
		ext = ".npz"
	}
	for _, suffix := range s.suffixes(".", ".layer") {
		names = append(names, stem+suffix+ext)
	}
	return append(names, stem+idsSuffix)
}

// idsSuffix ends the name of the text file with the ids of the records in a NumPy file.
const idsSuffix = ".ids.txt"

// npyHeaderSize is the size in bytes of the header of every NumPy array that is written: enough for two dimensions of
// 20 digits, and a multiple of 64, to which NumPy aligns its data.
const npyHeaderSize = 128

// npyInt32 is the name of the type int32 in the header of a NumPy array.
const npyInt32 = "<i4"

// npy returns the name of the type in the header of a NumPy array.
func (d DType) npy() string {
	if d == FP16 {
		return "<f2"
	}
	return "<f4"
}

// npyHeader returns the version 1.0 header of an array in C order
// (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html).
func npyHeader(dtype string, rows, dim int) []byte {
	const magic = "\x93NUMPY\x01\x00"
	dict := fmt.Sprintf("{'descr': '%s', 'fortran_order': False, 'shape': (%d, %d), }", dtype, rows, dim)
	header := make([]byte, 0, npyHeaderSize)
	header = append(header, magic...)
	header = binary.LittleEndian.AppendUint16(header, npyHeaderSize-uint16(len(magic))-2)
	header = append(header, dict...)
	header = append(header, strings.Repeat(" ", npyHeaderSize-1-len(header))...)
	return append(header, '\n')
}

// idList is the text file of ids, one per line, that accompanies arrays.
type idList struct{ file *atomicFile }

func (l idList) add(id string) error {
	if _, err := l.file.WriteString(oneLine(id)); err != nil {
		return err
	}
	_, err := l.file.WriteString("\n")
	return err
}

// npyEncoder writes one array [records, dim] per column. It writes the header of an array at the beginning, and again
// at the end, when the number of records is known.
type npyEncoder struct {
	spec   *Spec
	rows   int
	arrays []*atomicFile // one per column
	ids    idList
	floats floatWriter
}

func newNpyEncoder(s *Spec, files *fileSet) (encoder, error) {
	if !s.perRecord() {
		return newNpzEncoder(s, files)
	}
	paths := s.Paths()
	e := &npyEncoder{spec: s, floats: floatWriter{dtype: s.DType}}
	for _, path := range paths[:len(s.Columns)] {
		array, err := files.create(path, true)
		if err != nil {
			return nil, err
		}
		if _, err := array.Write(npyHeader(s.DType.npy(), 0, s.Dim)); err != nil {
			return nil, err
		}
		e.arrays = append(e.arrays, array)
	}
	ids, err := files.create(paths[len(s.Columns)], false)
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
		if err := array.writeAt(npyHeader(e.spec.DType.npy(), e.rows, e.spec.Dim), 0); err != nil {
			return err
		}
	}
	return nil
}

// npzEncoder writes embeddings per residue or token: one archive per column, with one array [rows, dim] per record. The
// name of an array is the record's id, escaped by EscapeName because extracting the archive turns the name into a file
// name. With residues of DNA, an array [rows, 2] of their first and last letters follows each array of embeddings. The
// text file contains the ids, escaped only by oneLine, in the order of the arrays.
//
// The archive's directory stays in memory until the end, with some 300 bytes per array.
type npzEncoder struct {
	spec     *Spec
	archives []*zipArchive // one per column
	ids      idList
	names    recordNames
	floats   floatWriter
}

func newNpzEncoder(s *Spec, files *fileSet) (encoder, error) {
	paths := s.Paths()
	e := &npzEncoder{spec: s, names: recordNames{}, floats: floatWriter{dtype: s.DType}}
	for _, path := range paths[:len(s.Columns)] {
		f, err := files.create(path, false)
		if err != nil {
			return nil, err
		}
		e.archives = append(e.archives, newZipArchive(f))
	}
	ids, err := files.create(paths[len(s.Columns)], false)
	e.ids.file = ids
	return e, err
}

// arrays returns the names of a record's arrays.
func (e *npzEncoder) arrays(r *Row) []string {
	name := EscapeName(r.ID)
	if e.spec.withLetters() {
		return []string{name, name + lettersSuffix}
	}
	return []string{name}
}

func (e *npzEncoder) check(r *Row) error { return e.names.check(r.ID, e.arrays(r)...) }

func (e *npzEncoder) add(r *Row) error {
	names, rows := e.arrays(r), e.spec.rows(r)
	e.names.add(names...)
	for i, archive := range e.archives {
		entry, err := archive.stream(names[0] + ".npy")
		if err != nil {
			return err
		}
		if _, err := entry.Write(npyHeader(e.spec.DType.npy(), rows, e.spec.Dim)); err != nil {
			return err
		}
		if err := e.floats.write(entry, r.Embeddings[i]); err != nil {
			return err
		}
		if len(names) == 1 {
			continue
		}
		if entry, err = archive.stream(names[1] + ".npy"); err != nil {
			return err
		}
		if _, err := entry.Write(appendLetters(npyHeader(npyInt32, rows, 2), r.Residues)); err != nil {
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

// errDuplicateName is the cause of the error for a record whose array, or file in the format Pt, would have the same
// name as that of an earlier record.
var errDuplicateName = fmt.Errorf("%w: an array of an earlier record has the same name, and npy, pt and safetensors name the arrays of a record after its id", ErrFormat)
