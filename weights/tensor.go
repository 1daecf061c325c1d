package weights

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"unsafe"

	"seqembed/internal/half"
)

const (
	// maxRank bounds the number of dimensions of a tensor; models use at most three.
	maxRank = 8
	// maxElements bounds the number of elements of a tensor so that its size in bytes, at most 8 for each element, fits
	// in an int.
	maxElements = math.MaxInt / 8
)

// Tensor is a named array in a checkpoint. It is decoded to float32 when it is read. Its rows run along the last
// dimension: a vector is one row, and a scalar is one row of one element. A Tensor is immutable and safe for concurrent
// use. After its checkpoint is closed, reading the tensor returns an error, unless the checkpoint is synthetic.
type Tensor struct {
	name       string
	shape      []int
	count      int   // number of elements
	stored     dtype // format of the elements in the file
	unreadable error // the reason why the values cannot be decoded, or nil
	// read decodes elements in row-major order until dst is full. The argument at is the index of the first element.
	read func(dst []float32, at int) error
}

// newTensor returns a tensor without values. It returns an error if the shape has more than maxRank dimensions, a
// negative dimension, or more than maxElements elements. Dimensions of 0 do not count for this limit, so that the other
// dimensions of an empty tensor are checked, too.
func newTensor(name string, shape []int) (*Tensor, error) {
	if len(shape) > maxRank {
		return nil, fmt.Errorf("has %d dimensions, more than %d", len(shape), maxRank)
	}
	product, empty := uint64(1), false
	for _, d := range shape {
		if d < 0 {
			return nil, fmt.Errorf("has the negative dimension %d", d)
		}
		if d == 0 {
			empty = true
			continue
		}
		high, low := bits.Mul64(product, uint64(d))
		if high != 0 || low > maxElements {
			return nil, fmt.Errorf("has the impossible shape %v", shape)
		}
		product = low
	}
	if empty {
		product = 0
	}
	return &Tensor{name: name, shape: slices.Clone(shape), count: int(product)}, nil
}

// Shape returns the dimensions. The slice belongs to the caller.
func (t *Tensor) Shape() []int { return slices.Clone(t.shape) }

// DType returns the format in which the elements are stored, as a safetensors header names it, such as F32. It returns
// "" for a synthetic tensor.
func (t *Tensor) DType() string { return string(t.stored) }

// ReadRows decodes consecutive rows into dst, from the row with the index first on. It is safe for concurrent use. It
// returns an error that names the tensor if dst is not a whole number of rows, if the rows do not exist, or if they
// cannot be decoded or read.
func (t *Tensor) ReadRows(dst []float32, first int) error {
	if len(dst) == 0 {
		return nil
	}
	rowLen := 1
	if len(t.shape) > 0 {
		rowLen = t.shape[len(t.shape)-1]
	}
	if rowLen == 0 || len(dst)%rowLen != 0 {
		return fmt.Errorf("tensor %q: %d values are not a whole number of rows of %d", t.name, len(dst), rowLen)
	}
	if rows, wanted := t.count/rowLen, len(dst)/rowLen; first < 0 || first > rows || wanted > rows-first {
		return fmt.Errorf("tensor %q: rows %d to %d wanted, it has %d", t.name, first, first+wanted, rows)
	}
	err := t.unreadable
	if err == nil {
		err = t.read(dst, first*rowLen)
	}
	if err != nil {
		return fmt.Errorf("tensor %q: %w", t.name, err)
	}
	return nil
}

// Float32s decodes the whole tensor, in row-major order, into a new slice. Its errors are those of ReadRows.
func (t *Tensor) Float32s() ([]float32, error) {
	if t.unreadable != nil { // checked first, so that no memory is allocated in vain
		return nil, fmt.Errorf("tensor %q: %w", t.name, t.unreadable)
	}
	dst := make([]float32, t.count)
	return dst, t.ReadRows(dst, 0)
}

// allZero reports whether a tensor has elements and all are 0. It stops reading at the first row that contains another
// value.
func (t *Tensor) allZero() (bool, error) {
	if t.count == 0 {
		return false, nil
	}
	row := make([]float32, t.shape[len(t.shape)-1])
	for i := range t.count / len(row) {
		if err := t.ReadRows(row, i); err != nil {
			return false, err
		}
		if slices.ContainsFunc(row, func(v float32) bool { return v != 0 }) {
			return false, nil
		}
	}
	return true, nil
}

// named returns the same tensor under another name.
func (t *Tensor) named(name string) *Tensor {
	renamed := *t
	renamed.name = name
	return &renamed
}

// dtype is the number format in which a tensor is stored, written as in a safetensors header.
type dtype string

// These formats can be decoded. Tensors of other formats may be in a checkpoint, but a model cannot read them.
const (
	f32  dtype = "F32"
	f16  dtype = "F16"
	bf16 dtype = "BF16"
)

// dtypeSizes contains the bytes per element of the formats whose size is checked.
var dtypeSizes = map[dtype]int{f32: 4, f16: 2, bf16: 2, "F64": 8, "I64": 8, "I32": 4, "I16": 2, "I8": 1,
	"U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1}

// store makes t read its values from the file f, where they are contiguous little-endian elements from the given offset
// on.
func (t *Tensor) store(f *file, offset int64, d dtype) {
	t.stored = d
	if d != f32 && d != f16 && d != bf16 {
		t.unreadable = fmt.Errorf("is stored as %s (F32, F16 and BF16 can be read)", d)
		return
	}
	size := dtypeSizes[d]
	t.read = func(dst []float32, at int) error {
		// The stored elements are read into the end of the memory of dst, and then decoded into dst one after the
		// other. No stored element is longer than a float32, so none is overwritten before it has been decoded.
		b := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(dst))), 4*len(dst))[(4-size)*len(dst):]
		if err := f.readAt(b, offset+int64(at)*int64(size)); err != nil {
			return err
		}
		d.decode(dst, b)
		return nil
	}
}

// decode converts the elements in b to float32 until dst is full. Conversions from 16 bits are exact.
func (d dtype) decode(dst []float32, b []byte) {
	switch d {
	case f32:
		for i := range dst {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
		}
	case f16:
		for i := range dst {
			dst[i] = half.FromFP16(binary.LittleEndian.Uint16(b[2*i:]))
		}
	case bf16:
		for i := range dst {
			dst[i] = half.FromBF16(binary.LittleEndian.Uint16(b[2*i:]))
		}
	}
}
