package cuda

import (
	"cmp"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"seqembed/kernels"
	"seqembed/kernels/cuda/driver"
	"seqembed/kernels/cuda/gpu"
)

// stagingBytes is the size of each of the two pieces of pinned memory through which weights go to the device: while one
// is copied the other is filled. The decoded float32 values of a piece are the rest of the cost of loading on the host.
const stagingBytes = 16 << 20

// weight is a loaded tensor. A projection and a lookup table are in the operands' type, in rows of a pitch. A vector is
// float32, with a copy in the operands' type for cuBLAS, whose bias has to be of its output's type.
type weight struct {
	backend    *Backend
	role       kernels.Role
	rows, cols int
	at         driver.Pointer
	copied     driver.Pointer // a vector in the operands' type
}

func (w *weight) Role() kernels.Role { return w.role }
func (w *weight) Dims() (int, int)   { return w.rows, w.cols }

// model is a set of weights on the device.
type model struct {
	*Backend
	weights []driver.Pointer // guarded by loading
}

// NewModel returns an empty set of weights.
func (b *Backend) NewModel() kernels.Model { return &model{Backend: b} }

// Close frees the weights.
func (m *model) Close() error {
	m.loading.Lock()
	defer m.loading.Unlock()
	err := m.do(func(c *gpu.Context) error {
		for _, p := range m.weights {
			c.Free(p)
		}
		return nil
	})
	m.weights = nil
	if errors.Is(err, gpu.ErrClosed) {
		return nil // the context went first, and everything with it
	}
	return err
}

// Load converts the parts to the device's type on the host, a piece at a time, and copies them over.
func (m *model) Load(role kernels.Role, parts ...kernels.Source) (kernels.Weight, error) {
	rows, cols, err := kernels.StackedDims(role, parts)
	if err != nil {
		return nil, err
	}
	w := &weight{backend: m.Backend, role: role, rows: rows, cols: cols}
	m.loading.Lock()
	defer m.loading.Unlock()
	if role == kernels.Vector {
		// Its parts are joined end to end, so to the loader it is one column.
		joined := stacked{parts: parts, cols: 1, tight: true}
		if w.at, err = m.place(joined, cols, FP32); err == nil {
			w.copied, err = m.place(joined, cols, m.dtype)
		}
		return w, wrap(role, rows, cols, err)
	}
	w.at, err = m.place(stacked{parts: parts, cols: cols}, rows, m.dtype)
	return w, wrap(role, rows, cols, err)
}

func wrap(role kernels.Role, rows, cols int, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("loading a %s [%d %d]: %w", role, rows, cols, err)
}

// stacked reads rows of sources that lie one below the other.
type stacked struct {
	parts []kernels.Source
	cols  int
	tight bool // rows follow each other without a pitch
}

// read decodes the rows from first on into dst, as many as it holds.
func (s stacked) read(dst []float32, first int) error {
	for _, p := range s.parts {
		rows := p.Shape()[0] // of a vector, its values
		if first < rows && len(dst) > 0 {
			n := min(len(dst), (rows-first)*s.cols)
			if err := s.readPart(p, dst[:n], first); err != nil {
				return err
			}
			dst, first = dst[n:], rows
		}
		first -= rows
	}
	return nil
}

// readPart reads from one source. A vector is a single row to its source, and is read whole even where only a piece of
// it is wanted.
func (s stacked) readPart(p kernels.Source, dst []float32, first int) error {
	if !s.tight {
		return p.ReadRows(dst, first)
	}
	whole := make([]float32, p.Shape()[0])
	if err := p.ReadRows(whole, 0); err != nil {
		return err
	}
	copy(dst, whole[first:])
	return nil
}

// place allocates a matrix on the device and fills it.
func (m *model) place(s stacked, rows int, t DType) (driver.Pointer, error) {
	stride := pitch(s.cols)
	if s.tight {
		stride = s.cols
	}
	rowBytes := stride * t.size()
	if m.staging == nil {
		made, err := m.device.NewStaging(stagingBytes)
		if err != nil {
			return 0, err
		}
		m.staging = made
	}
	var at driver.Pointer
	err := m.do(func(c *gpu.Context) (err error) { at, err = c.Alloc(rows * rowBytes); return err })
	if err != nil {
		return 0, err
	}
	chunk := m.staging.Size() / rowBytes
	if chunk < 1 {
		err = fmt.Errorf("a row of %d columns is over the %d bytes that are copied at a time", s.cols, m.staging.Size())
	}
	for first := 0; first < rows && err == nil; first += chunk {
		n := min(chunk, rows-first)
		err = m.staging.Send(at+driver.Pointer(first*rowBytes), n*rowBytes, func(dst []byte) error {
			return fill(s, t, dst, first, n, stride)
		})
	}
	// Also after an error: copies under way must not outlive the call.
	if err = cmp.Or(err, m.staging.Drain()); err != nil {
		return 0, cmp.Or(outOfMemory(err), m.do(func(c *gpu.Context) error { c.Free(at); return nil }))
	}
	m.weights = append(m.weights, at)
	return at, nil
}

// valuesAtATime bounds the values that one goroutine decodes before it encodes them, so that the float32 values are
// still in its cache.
const valuesAtATime = 64 << 10

// fill decodes n rows and encodes them into dst, on every core.
func fill(s stacked, t DType, dst []byte, first, n, stride int) error {
	rowBytes := stride * t.size()
	step := max(1, valuesAtATime/s.cols)
	tasks := make(chan int, ceilDiv(n, step)) // every task, so that filling it cannot block
	for from := 0; from < n; from += step {
		tasks <- from
	}
	close(tasks)
	workers := min(runtime.GOMAXPROCS(0), cap(tasks))
	failed := make([]error, workers)
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() {
			values := make([]float32, min(step, n)*s.cols)
			for from := range tasks {
				rows := min(step, n-from)
				if err := s.read(values[:rows*s.cols], first+from); err != nil {
					failed[w] = err
					return
				}
				for r := range rows {
					row := dst[(from+r)*rowBytes:][:rowBytes]
					t.encode(row, values[r*s.cols:(r+1)*s.cols])
					clear(row[s.cols*t.size():])
				}
			}
		})
	}
	group.Wait()
	for _, err := range failed {
		if err != nil {
			return err // one is enough: all parts usually fail together
		}
	}
	return nil
}
