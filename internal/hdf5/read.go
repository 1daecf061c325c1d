package hdf5

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
)

var (
	// ErrDamaged is wrapped by the error for a file that contradicts the format, or ends too early.
	ErrDamaged = errors.New("not an HDF5 file, or damaged")
	// ErrUnsupported is wrapped by the error for a part of the format that the package does not read.
	ErrUnsupported = errors.New("a kind of HDF5 that is not read here (h5repack --low=0 --high=0 -l CONTI -f NONE converts it)")
)

// Reader reads an HDF5 file. It is not safe for concurrent use.
type Reader struct {
	file io.ReaderAt
	size int64
	// Root is the address of the root group.
	Root Address

	// heap has the strings of one collection, which is a part of the global heap. heapAt is the offset of this
	// collection in the file.
	heap   map[uint16]string
	heapAt uint64
}

// Link is a name in a group, with the address of the object that has this name.
type Link struct {
	Name   string
	Object Address
}

// Object is a group or an array.
type Object struct {
	Type       Type
	Shape      []int
	Values     *io.SectionReader // the elements of an array in row-major order, little-endian; nil for a group
	Attributes []Attribute       // the attributes that are one string of variable length
	group      bool
	tree, heap uint64 // offsets in the file of the B-tree and of the local heap of a group
}

// IsGroup reports whether the object is a group.
func (o *Object) IsGroup() bool { return o.group }

// Open opens a file of the given size in bytes.
func Open(f io.ReaderAt, size int64) (*Reader, error) {
	r := &Reader{file: f, size: size}
	s, err := r.bytes(0, superblockSize)
	switch {
	case err != nil || string(s[:8]) != signature:
		return nil, fmt.Errorf("no signature: %w", ErrDamaged)
	case s[8] != 0 || s[13] != 8 || s[14] != 8 || !bytes.Equal(s[24:32], make([]byte, 8)):
		return nil, fmt.Errorf("superblock of version %d: %w", s[8], ErrUnsupported)
	}
	r.Root = Address(binary.LittleEndian.Uint64(s[64:]))
	return r, nil
}

// bytes returns n bytes of the file, which begin at the offset at.
func (r *Reader) bytes(at, n uint64) ([]byte, error) {
	if n > uint64(r.size) || at > uint64(r.size)-n {
		return nil, fmt.Errorf("%d bytes at %d of %d: %w", n, at, r.size, ErrDamaged)
	}
	b := make([]byte, n)
	_, err := r.file.ReadAt(b, int64(at))
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return b, err
}

// block returns n bytes of the file, which begin at the offset at. It returns an error unless the bytes begin with the
// text magic.
func (r *Reader) block(at, n uint64, magic string) ([]byte, error) {
	b, err := r.bytes(at, n)
	if err == nil && !bytes.HasPrefix(b, []byte(magic)) {
		err = fmt.Errorf("no %q at %d: %w", magic, at, ErrDamaged)
	}
	return b, err
}

// maxHeader is the maximum size in bytes of an object header. A larger header counts as damaged.
const maxHeader = 256 << 10

// Object reads the description of an object.
func (r *Reader) Object(a Address) (*Object, error) {
	prefix, err := r.bytes(uint64(a), headerPrefix)
	if err != nil {
		return nil, err
	}
	if prefix[0] != 1 {
		return nil, fmt.Errorf("object header at %d: %w", a, ErrUnsupported)
	}
	o := &Object{}
	var space, datatype, layout []byte
	var attributes [][]byte
	total := uint64(0)
	blocks := [][2]uint64{{uint64(a) + headerPrefix, uint64(binary.LittleEndian.Uint32(prefix[8:]))}}
	for ; len(blocks) > 0; blocks = blocks[1:] {
		if total += messageHeader + blocks[0][1]; total > maxHeader {
			return nil, fmt.Errorf("object header at %d of more than %d bytes: %w", a, maxHeader, ErrDamaged)
		}
		b, err := r.bytes(blocks[0][0], blocks[0][1])
		if err != nil {
			return nil, err
		}
		for len(b) >= messageHeader {
			n := int(binary.LittleEndian.Uint16(b[2:]))
			if n > len(b)-messageHeader {
				return nil, fmt.Errorf("a message of %d bytes in the object header at %d: %w", n, a, ErrDamaged)
			}
			content := b[messageHeader : messageHeader+n]
			switch kind := binary.LittleEndian.Uint16(b); {
			case kind == messageDataspace:
				space = content
			case kind == messageDatatype:
				datatype = content
			case kind == messageLayout:
				layout = content
			case kind == messageFilters:
				return nil, fmt.Errorf("a compressed array: %w", ErrUnsupported)
			case kind == messageAttribute:
				attributes = append(attributes, content)
			case kind == messageContinuation && n >= 16:
				blocks = append(blocks, [2]uint64{binary.LittleEndian.Uint64(content), binary.LittleEndian.Uint64(content[8:])})
			case kind == messageSymbols && n >= 16:
				o.group, o.tree, o.heap = true, binary.LittleEndian.Uint64(content), binary.LittleEndian.Uint64(content[8:])
			}
			b = b[messageHeader+n:]
		}
	}
	if err := r.attributes(o, attributes); err != nil || o.group {
		return o, err
	}
	return o, r.array(o, space, datatype, layout)
}

// array sets the type, the shape and the values of an array from its messages.
func (r *Reader) array(o *Object, space, datatype, layout []byte) (err error) {
	if o.Shape, err = decodeShape(space); err != nil {
		return err
	}
	if o.Type, err = decodeType(datatype); err != nil {
		return err
	}
	size := uint64(o.Type.Size())
	for _, n := range o.Shape {
		if n > 0 && size > uint64(math.MaxInt64)/uint64(n) {
			return fmt.Errorf("an array of shape %v: %w", o.Shape, ErrDamaged)
		}
		size *= uint64(n)
	}
	if len(layout) < 18 || layout[0] != 3 || layout[1] != 1 {
		return fmt.Errorf("an array that is not contiguous: %w", ErrUnsupported)
	}
	at := binary.LittleEndian.Uint64(layout[2:])
	if stored := binary.LittleEndian.Uint64(layout[10:]); stored != size {
		return fmt.Errorf("an array of shape %v, %d bytes, is stored in %d: %w", o.Shape, size, stored, ErrDamaged)
	}
	if size == 0 {
		at = 0
	}
	if size > uint64(r.size) || at > uint64(r.size)-size {
		return fmt.Errorf("an array of %d bytes at %d of %d: %w", size, at, r.size, ErrDamaged)
	}
	o.Values = io.NewSectionReader(r.file, int64(at), int64(size))
	return nil
}

func decodeShape(space []byte) (shape []int, err error) {
	if len(space) < 8 || space[0] != 1 && space[0] != 2 {
		return nil, fmt.Errorf("an object without a shape: %w", ErrUnsupported)
	}
	dims := space[8:]
	if space[0] == 2 {
		dims = space[4:]
	}
	for i := range int(space[1]) {
		if len(dims) < 8*(i+1) || binary.LittleEndian.Uint64(dims[8*i:]) > math.MaxInt64 {
			return nil, fmt.Errorf("an array of %d dimensions: %w", space[1], ErrDamaged)
		}
		shape = append(shape, int(binary.LittleEndian.Uint64(dims[8*i:])))
	}
	return shape, nil
}

func decodeType(datatype []byte) (Type, error) {
	for _, t := range []Type{Float16, Float32, Float64, Int32} {
		if bytes.HasPrefix(datatype, t.encode()) {
			return t, nil
		}
	}
	if len(datatype) >= 8 && datatype[0]&15 == 9 && datatype[1]&15 == 1 && datatype[4] == stringRef {
		return String, nil
	}
	return 0, errors.New("values that are neither floats, 32-bit integers nor strings of variable length: they are not read here")
}

// attributes decodes attribute messages into o.Attributes. It leaves out attributes that are not one string of variable
// length.
func (r *Reader) attributes(o *Object, messages [][]byte) error {
	for _, m := range messages {
		if len(m) < 8 || m[0] < 1 || m[0] > 3 {
			continue
		}
		parts, at := [3][]byte{}, 8
		if m[0] == 3 {
			at = 9 // version 3 of the message has one more byte, the encoding of the name
		}
		for i := range parts {
			n := int(binary.LittleEndian.Uint16(m[2+2*i:]))
			if at > len(m) || n > len(m)-at {
				return fmt.Errorf("an attribute of %d bytes: %w", len(m), ErrDamaged)
			}
			parts[i] = m[at : at+n]
			if at += n; m[0] == 1 {
				at = (at + 7) &^ 7
			}
		}
		shape, shapeErr := decodeShape(parts[2])
		t, err := decodeType(parts[1])
		if err != nil || shapeErr != nil || t != String || len(shape) > 0 || at > len(m) || len(m)-at < stringRef {
			continue
		}
		text, err := r.String(m[at:])
		if err != nil {
			return err
		}
		o.Attributes = append(o.Attributes, Attribute{string(bytes.TrimRight(parts[0], "\x00")), text})
	}
	return nil
}

// String returns the text of a string. ref is the reference to the string, such as an element of an array of strings.
func (r *Reader) String(ref []byte) (string, error) {
	n, at := binary.LittleEndian.Uint32(ref), binary.LittleEndian.Uint64(ref[4:])
	if n == 0 {
		return "", nil
	}
	if at != r.heapAt || r.heap == nil {
		if err := r.readCollection(at); err != nil {
			return "", err
		}
	}
	text, ok := r.heap[binary.LittleEndian.Uint16(ref[12:])]
	if !ok || uint64(n) > uint64(len(text)) {
		return "", fmt.Errorf("a string at %d: %w", at, ErrDamaged)
	}
	return text[:n], nil
}

// readCollection reads a collection of the global heap (III.E).
func (r *Reader) readCollection(at uint64) error {
	b, err := r.block(at, collectionPrefix, "GCOL\x01")
	if err != nil {
		return err
	}
	if b, err = r.bytes(at, binary.LittleEndian.Uint64(b[8:])); err != nil {
		return err
	}
	r.heapAt, r.heap = at, map[uint16]string{}
	for b = b[min(len(b), collectionPrefix):]; len(b) >= 16; {
		index, n := binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint64(b[8:])
		if index == 0 { // object 0 is the free space at the end of the collection
			break
		}
		if b = b[16:]; n > uint64(len(b)) {
			return fmt.Errorf("a heap object of %d bytes at %d: %w", n, at, ErrDamaged)
		}
		r.heap[index] = string(b[:n])
		b = b[min(uint64(len(b)), (n+7)&^7):]
	}
	return nil
}

// Links returns the links of a group, in the order of their names. Each link takes 24 bytes of memory, and those of its
// name.
func (r *Reader) Links(o *Object) ([]Link, error) {
	b, err := r.block(o.heap, heapPrefix, "HEAP\x00")
	if err != nil {
		return nil, err
	}
	names, err := r.bytes(binary.LittleEndian.Uint64(b[24:]), binary.LittleEndian.Uint64(b[8:]))
	if err != nil {
		return nil, err
	}
	l := linkReader{r: r, names: string(names), left: r.size}
	err = l.node(o.tree, -1)
	return l.links, err
}

// linkReader collects the links of a group.
type linkReader struct {
	r     *Reader
	names string
	links []Link
	left  int64 // number of bytes of nodes that may still be read, so that reading a damaged tree ends
}

// take returns n bytes of a node, which begin at the offset at in the file. It returns an error unless the bytes begin
// with the text magic.
func (l *linkReader) take(at, n uint64, magic string) ([]byte, error) {
	if l.left -= int64(n); l.left < 0 {
		return nil, fmt.Errorf("a group with more nodes than the file has bytes: %w", ErrDamaged)
	}
	return l.r.block(at, n, magic)
}

// node reads a node of the B-tree and the nodes below it. level is the level that the node must have, or -1 for the
// root, which may have any level.
func (l *linkReader) node(at uint64, level int) error {
	b, err := l.take(at, btreePrefix, "TREE\x00")
	if err != nil {
		return err
	}
	if level >= 0 && int(b[5]) != level {
		return fmt.Errorf("a B-tree node at %d of level %d: %w", at, b[5], ErrDamaged)
	}
	level = int(b[5])
	children, err := l.take(at+btreePrefix, 16*uint64(binary.LittleEndian.Uint16(b[6:])), "")
	if err != nil {
		return err
	}
	for ; len(children) > 0; children = children[16:] {
		child := binary.LittleEndian.Uint64(children[8:])
		if level > 0 {
			err = l.node(child, level-1)
		} else {
			err = l.symbols(child)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// symbols reads a symbol table node and appends its links.
func (l *linkReader) symbols(at uint64) error {
	b, err := l.take(at, symbolsPrefix, "SNOD\x01")
	if err != nil {
		return err
	}
	entries, err := l.take(at+symbolsPrefix, symbolSize*uint64(binary.LittleEndian.Uint16(b[6:])), "")
	if err != nil {
		return err
	}
	for ; len(entries) > 0; entries = entries[symbolSize:] {
		name := binary.LittleEndian.Uint64(entries)
		if name >= uint64(len(l.names)) {
			return fmt.Errorf("a name at %d of %d: %w", name, len(l.names), ErrDamaged)
		}
		text, _, _ := strings.Cut(l.names[name:], "\x00")
		l.links = append(l.links, Link{text, Address(binary.LittleEndian.Uint64(entries[8:]))})
	}
	return nil
}
