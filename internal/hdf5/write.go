package hdf5

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// Address is the offset in bytes of an object in a file.
type Address uint64

// File is a file under construction.
type File interface {
	io.Writer // appends to the file
	// WriteAt replaces bytes that have been written.
	WriteAt(p []byte, offset int64) (int, error)
}

// Writer writes an HDF5 file from its beginning to its end. After the first error of the underlying file, every method
// returns that error.
type Writer struct {
	file File
	at   int64
	err  error
	// heap is the collection of the global heap that takes the next strings. A place for it is reserved in the file, at
	// offset heapAt. The Writer writes heap there when heap is full or the Writer is closed.
	heap    []byte
	heapAt  int64
	strings uint16 // number of strings in heap
	next    int    // size in bytes of the next collection
	header  []byte // buffer of one object header
}

// NewWriter returns a Writer to f, which must be empty.
func NewWriter(f File) (*Writer, error) {
	w := &Writer{file: f, next: minCollection}
	w.write(make([]byte, superblockSize))
	return w, w.err
}

// Minimum and maximum sizes in bytes of a collection of the global heap, which holds strings. The HDF5 library accepts
// no collection below the minimum. The first collection of a file has the minimum size, so that a small file stays
// small. Each further collection has twice the size of the previous one, up to the maximum. A string that is too long
// for the next collection gets a larger one.
const minCollection, maxCollection = 4 << 10, 64 << 10

func (w *Writer) write(p []byte) {
	if w.err == nil {
		_, w.err = w.file.Write(p)
		w.at += int64(len(p))
	}
}

// Write appends values of an array. The caller calls Align before the first value, and passes the address that Align
// returns to ArrayAt, which describes the array.
func (w *Writer) Write(p []byte) (int, error) {
	if w.write(p); w.err != nil {
		return 0, w.err
	}
	return len(p), nil
}

// Align appends zeros up to a multiple of 8 bytes and returns the offset of the next byte.
func (w *Writer) Align() (Address, error) {
	if n := w.at & 7; n != 0 {
		w.write(make([]byte, 8-n))
	}
	return Address(w.at), w.err
}

// String stores a text and returns the reference to it. Such references are the elements of an array of strings.
func (w *Writer) String(s string) (ref [stringRef]byte, err error) {
	const objectHeader = 16
	size := objectHeader + (len(s)+7)&^7
	if w.heap != nil && (len(w.heap)+size > cap(w.heap) || w.strings == math.MaxUint16) {
		w.flushStrings()
	}
	if w.heap == nil {
		capacity := max(w.next, collectionPrefix+size)
		w.next = min(2*w.next, maxCollection)
		at, _ := w.Align()
		w.heapAt = int64(at)
		w.heap = append(make([]byte, 0, capacity), "GCOL\x01\x00\x00\x00"...)
		w.heap = binary.LittleEndian.AppendUint64(w.heap, uint64(capacity))
		w.strings = 0
		w.write(w.heap[:capacity])
	}
	w.strings++
	w.heap = binary.LittleEndian.AppendUint16(w.heap, w.strings)
	w.heap = append(w.heap, 1, 0, 0, 0, 0, 0) // reference count 1
	w.heap = binary.LittleEndian.AppendUint64(w.heap, uint64(len(s)))
	w.heap = pad(append(w.heap, s...))

	binary.LittleEndian.PutUint32(ref[:], uint32(len(s)))
	binary.LittleEndian.PutUint64(ref[4:], uint64(w.heapAt))
	binary.LittleEndian.PutUint32(ref[12:], uint32(w.strings))
	return ref, w.err
}

// flushStrings writes the collection of strings that is in memory to its place in the file. If 16 or more bytes of the
// collection are free, they are described as object 0, the free space.
func (w *Writer) flushStrings() {
	if w.heap == nil || w.err != nil {
		return
	}
	rest := uint64(cap(w.heap) - len(w.heap))
	content := w.heap[:cap(w.heap)]
	if rest >= 16 {
		binary.LittleEndian.PutUint64(content[len(w.heap)+8:], rest)
	}
	_, w.err = w.file.WriteAt(content, w.heapAt)
	w.heap = nil
}

// ArrayAt writes the description of an array and returns its address. values is the address of the array's values,
// which were written before or will be written later. Their size in bytes is the product of shape, times t.Size().
func (w *Writer) ArrayAt(values Address, t Type, shape []int, attributes ...Attribute) (Address, error) {
	size := uint64(t.Size())
	for _, n := range shape {
		size *= uint64(n)
	}
	if size == 0 {
		values = Address(undefined)
	}
	layout := binary.LittleEndian.AppendUint64([]byte{3, 1}, uint64(values)) // layout version 3, contiguous array
	layout = binary.LittleEndian.AppendUint64(layout, size)
	return w.object([]message{
		{messageDataspace, encodeShape(shape)},
		{messageDatatype, t.encode()},
		{messageFill, []byte{2, 2, 2, 1, 0, 0, 0, 0}}, // version 2, late allocation, fill value written if set, default value
		{messageLayout, layout},
	}, attributes)
}

// Array writes a whole array: its values, which are little-endian, and their description. It returns the address of the
// description.
func (w *Writer) Array(t Type, shape []int, values []byte, attributes ...Attribute) (Address, error) {
	at, err := w.Align()
	if err != nil {
		return 0, err
	}
	w.write(values)
	return w.ArrayAt(at, t, shape, attributes...)
}

type message struct {
	kind    uint16
	content []byte
}

// object writes the header of a group or an array, in version 1 of the format, with the given messages and attributes
// (IV.A.1.a). It returns the address of the header.
func (w *Writer) object(messages []message, attributes []Attribute) (Address, error) {
	for _, a := range attributes {
		ref, err := w.String(a.Value)
		if err != nil {
			return 0, err
		}
		messages = append(messages, message{messageAttribute, encodeAttribute(a.Name, ref)})
	}
	h := append(w.header[:0], 1, 0)
	h = binary.LittleEndian.AppendUint16(h, uint16(len(messages)))
	h = binary.LittleEndian.AppendUint32(h, 1) // reference count 1: one link leads to the object
	h = append(h, 0, 0, 0, 0, 0, 0, 0, 0)      // 4 bytes for the size of the messages, set below, and 4 of padding
	for _, m := range messages {
		h = binary.LittleEndian.AppendUint16(h, m.kind)
		h = binary.LittleEndian.AppendUint16(h, uint16((len(m.content)+7)&^7))
		h = append(h, 0, 0, 0, 0)
		h = pad(append(h, m.content...))
	}
	binary.LittleEndian.PutUint32(h[8:], uint32(len(h)-headerPrefix))
	w.header = h
	at, _ := w.Align()
	w.write(h)
	return at, w.err
}

// encodeAttribute returns the content of the attribute message (version 1, section IV.A.2.m of the specification of
// HDF5) for an attribute whose value is one string. value is the reference to that string.
func encodeAttribute(name string, value [stringRef]byte) []byte {
	datatype, space := String.encode(), encodeShape(nil)
	m := []byte{1, 0}
	for _, n := range []int{len(name) + 1, len(datatype), len(space)} {
		m = binary.LittleEndian.AppendUint16(m, uint16(n))
	}
	m = pad(append(append(m, name...), 0))
	m = pad(append(m, datatype...))
	m = append(m, space...)
	return append(m, value[:]...)
}

// Links are the links of a group that is being made. Each link takes the bytes of its name and some 20 more in memory.
type Links struct {
	heap    []byte // names, each ended by a zero and padded to a multiple of 8 bytes; the first one is empty
	entries []link
}

type link struct {
	name   uint64 // offset of the name in Links.heap
	object Address
}

var (
	// ErrName is wrapped by the error for a name that a link cannot have.
	ErrName = errors.New("not a name of an HDF5 link")
	// ErrDuplicate is wrapped by the error for two links of one group with the same name.
	ErrDuplicate = errors.New("two HDF5 links have the same name")
)

// Add adds a link to an object. It returns an ErrName for a name that is empty or ".", or that has a slash or a zero
// byte.
func (l *Links) Add(name string, object Address) error {
	if name == "" || name == "." || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("%q: %w", name, ErrName)
	}
	if l.heap == nil {
		l.heap = make([]byte, 8)
	}
	l.entries = append(l.entries, link{uint64(len(l.heap)), object})
	l.heap = pad(append(append(l.heap, name...), 0))
	return nil
}

// Len returns the number of links.
func (l *Links) Len() int { return len(l.entries) }

func (l *Links) name(e link) []byte {
	name := l.heap[e.name:]
	return name[:bytes.IndexByte(name, 0)]
}

// sort brings the links into the order of their names, which a group requires.
func (l *Links) sort() error {
	slices.SortFunc(l.entries, func(a, b link) int { return bytes.Compare(l.name(a), l.name(b)) })
	for i, e := range l.entries {
		if i > 0 && bytes.Equal(l.name(l.entries[i-1]), l.name(e)) {
			return fmt.Errorf("%q: %w", l.name(e), ErrDuplicate)
		}
	}
	return nil
}

// Sizes of the nodes of a group: a symbol table node has at most 2×leafK links, a B-tree node 2×internalK children.
const leafK, internalK = 64, 32

// Group writes a group with the given links, which it sorts by name, and returns its address.
func (w *Writer) Group(l *Links, attributes ...Attribute) (Address, error) {
	if err := l.sort(); err != nil {
		return 0, err
	}
	if l.heap == nil {
		l.heap = make([]byte, 8)
	}
	names, _ := w.Align()
	w.write(l.heap)
	heap, _ := w.Align()
	prefix := []byte("HEAP\x00\x00\x00\x00")
	for _, v := range []uint64{uint64(len(l.heap)), 1, uint64(names)} { // 1 means that no part of the heap is free
		prefix = binary.LittleEndian.AppendUint64(prefix, v)
	}
	w.write(prefix)

	nodes := w.symbolNodes(l)
	for level := 0; ; level++ {
		nodes = w.treeNodes(nodes, level)
		if len(nodes) == 1 {
			break
		}
	}
	table := binary.LittleEndian.AppendUint64(nil, uint64(nodes[0].at))
	table = binary.LittleEndian.AppendUint64(table, uint64(heap))
	return w.object([]message{{messageSymbols, table}}, attributes)
}

// node is a node of a group's B-tree that has been written: a symbol table node or an inner node.
type node struct {
	at   Address
	last uint64 // offset, in the local heap, of the last name in the node
}

// symbolNodes writes the links in symbol table nodes (III.B).
func (w *Writer) symbolNodes(l *Links) (nodes []node) {
	for part := range slices.Chunk(l.entries, 2*leafK) {
		n := append(make([]byte, 0, symbolsPrefix+2*leafK*symbolSize), "SNOD\x01\x00"...)
		n = binary.LittleEndian.AppendUint16(n, uint16(len(part)))
		for _, e := range part {
			n = binary.LittleEndian.AppendUint64(n, e.name)
			n = binary.LittleEndian.AppendUint64(n, uint64(e.object))
			n = append(n, make([]byte, symbolSize-16)...)
		}
		at, _ := w.Align()
		w.write(n[:cap(n)])
		nodes = append(nodes, node{at, part[len(part)-1].name})
	}
	return nodes
}

// treeNodes writes the nodes of one level of a B-tree and returns them (III.A.1). children are the nodes of the level
// below. In a node, the key between two children is the last name of the left child. The first key of the level is the
// empty name.
func (w *Writer) treeNodes(children []node, level int) (nodes []node) {
	const size = btreePrefix + 2*internalK*16 + 8
	at, _ := w.Align()
	count := max(1, (len(children)+2*internalK-1)/(2*internalK))
	first := uint64(0)
	for i := range count {
		part := children[i*2*internalK : min((i+1)*2*internalK, len(children))]
		n := append(make([]byte, 0, size), "TREE\x00"...)
		n = append(n, byte(level))
		n = binary.LittleEndian.AppendUint16(n, uint16(len(part)))
		left, right := undefined, undefined
		if i > 0 {
			left = uint64(at) + uint64(i-1)*size
		}
		if i < count-1 {
			right = uint64(at) + uint64(i+1)*size
		}
		n = binary.LittleEndian.AppendUint64(n, left)
		n = binary.LittleEndian.AppendUint64(n, right)
		n = binary.LittleEndian.AppendUint64(n, first)
		for _, c := range part {
			n = binary.LittleEndian.AppendUint64(n, uint64(c.at))
			n = binary.LittleEndian.AppendUint64(n, c.last)
			first = c.last
		}
		w.write(n[:size])
		nodes = append(nodes, node{at + Address(i*size), first})
	}
	return nodes
}

// Close writes the strings that are still in memory, and the superblock (II.A), which contains root, the address of the
// root group. It does not close the file.
func (w *Writer) Close(root Address) error {
	w.flushStrings()
	if w.err != nil {
		return w.err
	}
	s := append([]byte(signature), 0, 0, 0, 0, 0, 8, 8, 0) // all versions are 0, offsets and lengths take 8 bytes
	s = binary.LittleEndian.AppendUint16(s, leafK)
	s = binary.LittleEndian.AppendUint16(s, internalK)
	s = append(s, 0, 0, 0, 0)
	for _, v := range []uint64{0, undefined, uint64(w.at), undefined, 0, uint64(root)} {
		s = binary.LittleEndian.AppendUint64(s, v)
	}
	_, w.err = w.file.WriteAt(append(s, make([]byte, superblockSize-len(s))...), 0)
	return w.err
}
