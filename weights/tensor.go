package weights

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
)

const (
	// maxRank bounds the number of dimensions of a tensor; models use at most three.
	maxRank = 8
	// maxElements keeps the bytes of a tensor, at most 8 an element, inside an int.
	maxElements = math.MaxInt / 8
)

// Tensor is one named array of a checkpoint, decoded to float32 on demand. A
// row is the last dimension; a vector is one row, a scalar one row of one
// element. A Tensor is immutable and safe for concurrent use until its
// checkpoint is closed; after that its reads return errors.
type Tensor struct {
	name   string
	shape  []int
	dtype  DType
	count  int // elements
	values elements
}

// elements is where a tensor's values come from.
type elements interface {
	// usable returns nil where read can decode the values, else why it cannot.
	usable() error
	// read puts the elements from index at on, in row-major order, into dst.
	read(dst []float32, at int) error
	// release lets the operating system take back the memory behind the values.
	release()
}

// newTensor checks that the shape makes sense and that its elements can be counted.
func newTensor(name string, shape []int, dtype DType, values elements) (*Tensor, error) {
	count, err := elementCount(shape)
	if err != nil {
		return nil, err
	}
	return &Tensor{name: name, shape: slices.Clone(shape), dtype: dtype, count: count, values: values}, nil
}

// elementCount multiplies the dimensions of a shape from outside. A shape whose
// other dimensions overflow is refused even if one of them is 0.
func elementCount(shape []int) (int, error) {
	if len(shape) > maxRank {
		return 0, fmt.Errorf("has %d dimensions, more than %d", len(shape), maxRank)
	}
	product, empty := uint64(1), false
	for _, d := range shape {
		if d < 0 {
			return 0, fmt.Errorf("has the negative dimension %d", d)
		}
		if d == 0 {
			empty = true
			continue
		}
		high, low := bits.Mul64(product, uint64(d))
		if high != 0 || low > maxElements {
			return 0, fmt.Errorf("has the impossible shape %v", shape)
		}
		product = low
	}
	if empty {
		return 0, nil
	}
	return int(product), nil
}

// Name returns the canonical name in a Checkpoint, the stored name in a File.
func (t *Tensor) Name() string { return t.name }

// Shape returns the dimensions; the caller may keep and change the slice.
func (t *Tensor) Shape() []int { return slices.Clone(t.shape) }

// DType returns the format in which the tensor is stored; F32 when it is synthetic.
func (t *Tensor) DType() DType { return t.dtype }

// Len returns the number of elements.
func (t *Tensor) Len() int { return t.count }

// RowLen returns the length of a row: the last dimension, 1 for a scalar.
func (t *Tensor) RowLen() int {
	if len(t.shape) == 0 {
		return 1
	}
	return t.shape[len(t.shape)-1]
}

// Rows returns the number of rows: the product of all dimensions but the last.
func (t *Tensor) Rows() int {
	if t.count == 0 {
		return 0
	}
	return t.count / t.RowLen()
}

// ReadRows decodes len(dst)/RowLen() consecutive rows, starting at row first,
// into dst. It is safe for concurrent use. It fails, naming the tensor, when
// dst is not a whole number of rows, when the rows do not exist, when the stored
// format cannot be decoded, and when the file cannot be read.
func (t *Tensor) ReadRows(dst []float32, first int) error {
	rows, rowLen := t.Rows(), t.RowLen()
	if rowLen == 0 || len(dst)%rowLen != 0 {
		if len(dst) == 0 {
			return nil
		}
		return fmt.Errorf("tensor %q: %d values are not a whole number of rows of %d", t.name, len(dst), rowLen)
	}
	wanted := len(dst) / rowLen
	if first < 0 || first > rows || wanted > rows-first {
		return fmt.Errorf("tensor %q: rows %d to %d wanted, it has %d", t.name, first, first+wanted, rows)
	}
	return t.read(dst, first*rowLen)
}

// Float32s decodes the whole tensor, row-major, into a new slice. It fails like ReadRows.
func (t *Tensor) Float32s() ([]float32, error) {
	// The check comes first so that what cannot be decoded is never allocated.
	if err := t.values.usable(); err != nil {
		return nil, fmt.Errorf("tensor %q: %w", t.name, err)
	}
	dst := make([]float32, t.count)
	if err := t.read(dst, 0); err != nil {
		return nil, err
	}
	return dst, nil
}

func (t *Tensor) read(dst []float32, at int) error {
	if err := t.values.read(dst, at); err != nil {
		return fmt.Errorf("tensor %q: %w", t.name, err)
	}
	return nil
}

// Release tells the operating system that the mapped pages of the tensor are no
// longer needed; a later read brings them back from the file. It does nothing
// where there are none.
func (t *Tensor) Release() { t.values.release() }

// named returns the same tensor under another name.
func (t *Tensor) named(name string) *Tensor {
	renamed := *t
	renamed.name = name
	return &renamed
}

// unreadable stands in for values that can be listed but not decoded.
type unreadable struct{ reason error }

func (u unreadable) usable() error             { return u.reason }
func (u unreadable) read([]float32, int) error { return u.reason }
func (u unreadable) release()                  {}

// storedElements are contiguous little-endian elements of a file.
type storedElements struct {
	file   *mappedFile
	offset int64 // of the first element in the file
	size   int64 // bytes
	dtype  DType
}

func (s storedElements) usable() error {
	if !s.dtype.decodable() {
		return fmt.Errorf("is stored as %v; F32, F16 and BF16 can be read", s.dtype)
	}
	return nil
}

func (s storedElements) read(dst []float32, at int) error {
	if err := s.usable(); err != nil {
		return err
	}
	size := s.dtype.Size()
	return s.file.visit(s.offset+int64(at)*int64(size), int64(len(dst))*int64(size), func(chunk []byte) {
		n := len(chunk) / size
		s.dtype.decode(dst[:n], chunk)
		dst = dst[n:]
	})
}

func (s storedElements) release() { s.file.release(s.offset, s.size) }
