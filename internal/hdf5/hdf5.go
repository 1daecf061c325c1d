// Package hdf5 writes and reads a small part of the HDF5 file format: version 0 of the superblock, groups with a symbol
// table, and contiguous arrays of numbers and of strings. Every release of the HDF5 library since 1.6.3 reads such
// files, and a group with a symbol table takes any number of links.
//
// The package does not depend on the meaning of the arrays. The format is specified by The HDF Group, "HDF5 File Format
// Specification Version 3.0", https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html. Numbers such as II.A
// in this package are sections of that document.
package hdf5

import (
	"encoding/binary"
	"fmt"
)

// Type is the type of the elements of an array.
type Type uint8

// Types of elements. Numbers are little-endian; a String is UTF-8 text of any length.
const (
	Float16 Type = iota
	Float32
	Float64
	Int32
	String
)

// Size returns the size in bytes of an element in an array. An element of type String is a reference to its text, which
// is stored elsewhere in the file.
func (t Type) Size() int { return [...]int{2, 4, 8, 4, stringRef}[t] }

// String returns the name of the type.
func (t Type) String() string {
	return [...]string{"float16", "float32", "float64", "int32", "string"}[t]
}

// Attribute is a named text of a group or an array.
type Attribute struct{ Name, Value string }

const (
	signature = "\x89HDF\r\n\x1a\n"
	// superblockSize is the size in bytes of the superblock, including the symbol table entry of the root group (II.A).
	superblockSize = 96
	// undefined is the address of an object that does not exist.
	undefined = ^uint64(0)
	// stringRef is the size in bytes of a reference to a string. A reference has the length of the string, the address
	// of a collection of the global heap, and the index of the string in the collection.
	stringRef = 16
	// messageHeader is the size in bytes of the header of a message, headerPrefix that of an object header without its
	// messages (IV.A.1.a).
	messageHeader, headerPrefix = 8, 16
	// btreePrefix, symbolsPrefix, heapPrefix and collectionPrefix are the sizes in bytes of the headers before the entries
	// of a B-tree node (III.A.1), of a symbol table node (III.B), of a local heap (III.D) and of a collection of the
	// global heap (III.E).
	btreePrefix, symbolsPrefix, heapPrefix, collectionPrefix = 24, 8, 32, 16
	// symbolSize is the size in bytes of an entry of a symbol table node (III.C).
	symbolSize = 40
)

// Types of messages in an object header (IV.A.2).
const (
	messageDataspace    = 0x01
	messageDatatype     = 0x03
	messageFill         = 0x05
	messageLayout       = 0x08
	messageFilters      = 0x0b
	messageAttribute    = 0x0c
	messageContinuation = 0x10
	messageSymbols      = 0x11
)

// encode returns the content of the datatype message, which describes the type in an object header (IV.A.2.d).
func (t Type) encode() []byte {
	float := func(size, sign, exponentAt, exponentBits byte, bias uint32) []byte {
		m := []byte{0x11, 0x20, sign, 0, size, 0, 0, 0, 0, 0, 8 * size, 0, exponentAt, exponentBits, 0, exponentAt}
		return binary.LittleEndian.AppendUint32(m, bias)
	}
	switch t {
	case Float16:
		return float(2, 15, 10, 5, 15)
	case Float32:
		return float(4, 31, 23, 8, 127)
	case Float64:
		return float(8, 63, 52, 11, 1023)
	case Int32:
		return []byte{0x10, 0x08, 0, 0, 4, 0, 0, 0, 0, 0, 32, 0}
	case String: // UTF-8 of variable length, ended by a zero byte; its base type is the unsigned byte
		return []byte{0x19, 0x01, 0x01, 0, stringRef, 0, 0, 0, 0x10, 0, 0, 0, 1, 0, 0, 0, 0, 0, 8, 0}
	}
	panic(fmt.Sprintf("hdf5: type %d", uint8(t)))
}

// encodeShape returns the content of the dataspace message, which describes the shape in an object header (IV.A.2.b). A
// single value has an empty shape.
func encodeShape(shape []int) []byte {
	m := []byte{1, byte(len(shape)), 0, 0, 0, 0, 0, 0}
	for _, n := range shape {
		m = binary.LittleEndian.AppendUint64(m, uint64(n))
	}
	return m
}

// pad appends zeros up to a multiple of 8 bytes.
func pad(b []byte) []byte { return append(b, make([]byte, -len(b)&7)...) }
