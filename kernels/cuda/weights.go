package cuda

import (
	"cmp"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"seqembed/kernels"
	"seqembed/kernels/cuda/driver"
	"seqembed/kernels/cuda/gpu"
)

// staging is a double buffer of pinned memory through which weights are uploaded, on a stream of its own. While one
// buffer is copied, the other is filled.
type staging struct {
	stream  gpu.Stream
	buffers [2]gpu.Pinned
	copied  [2]gpu.Event // happens when the last copy from the buffer has finished
}

// stagingBytes is the size of each staging buffer.
const stagingBytes = 16 << 20

// allocate creates the stream and the buffers when it is first called. bytes is the size of each buffer.
func (s *staging) allocate(c *gpu.Context, r *gpu.Resources, bytes int) {
	if s.stream != 0 {
		return
	}
	stream := r.NewStream(c)
	for i := range s.buffers {
		s.buffers[i], s.copied[i] = r.Pin(c, bytes), r.NewEvent(c)
	}
	if c.Err == nil {
		s.stream = stream
	}
}

// weight is a loaded tensor. A projection or a lookup table is stored in the operands' type, with padded rows (see
// pitch). A vector is stored in float32. It also has a copy in the operands' type, because cuBLAS requires that a bias
// has the type of the output.
type weight struct {
	backend    *Backend
	role       kernels.Role
	rows, cols int
	at         driver.Pointer
	copied     driver.Pointer // the copy of a vector in the operands' type
}

func (w *weight) Role() kernels.Role { return w.role }
func (w *weight) Dims() (int, int)   { return w.rows, w.cols }

// model is a set of weights on the device.
type model struct {
	*Backend
	weights gpu.Resources // guarded by Backend.loading
}

// NewModel returns an empty set of weights.
func (b *Backend) NewModel() kernels.Model { return &model{Backend: b} }

// Close frees the weights.
func (m *model) Close() error {
	m.loading.Lock()
	defer m.loading.Unlock()
	return outOfMemory(m.device.Free(&m.weights))
}

// Load stacks the parts by rows, or concatenates them if they are vectors, and uploads them. Before the upload it
// converts them on the host, one staging buffer at a time: vectors to float32 and to the operands' type, all others to
// the operands' type only.
func (m *model) Load(role kernels.Role, parts ...kernels.Source) (kernels.Weight, error) {
	rows, cols, err := kernels.StackedDims(role, parts)
	if err != nil {
		return nil, err
	}
	w := &weight{backend: m.Backend, role: role, rows: rows, cols: cols}
	m.loading.Lock()
	defer m.loading.Unlock()
	if role != kernels.Vector {
		w.at, err = m.load(rows, cols, m.dtype, func(dst []float32, first int) error {
			return kernels.ReadStacked(parts, dst, first)
		})
	} else {
		values := make([]float32, cols)
		read := func(dst []float32, _ int) error { copy(dst, values); return nil }
		if err = kernels.ReadStacked(parts, values, 0); err == nil {
			w.at, err = m.load(rows, cols, kernels.FP32, read)
		}
		if err == nil {
			w.copied, err = m.load(rows, cols, m.dtype, read)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("loading a %s [%d %d]: %w", role, rows, cols, err)
	}
	return w, nil
}

// load allocates a matrix of type t on the device and fills it with the rows that the function read decodes. The second
// argument of read is the index of the first row.
func (m *model) load(rows, cols int, t kernels.DType, read func([]float32, int) error) (at driver.Pointer, err error) {
	rowBytes := pitch(cols) * sizeOf(t)
	err = m.do(func(c *gpu.Context) {
		at = m.weights.Alloc(c, rows*rowBytes)
		m.staging.allocate(c, &m.resources, stagingBytes)
	})
	if err != nil {
		return 0, err
	}
	s, bytes := &m.staging, len(m.staging.buffers[0].Bytes)
	chunk := bytes / rowBytes
	if chunk < 1 {
		return 0, fmt.Errorf("a row of %d columns is over the %d bytes that are copied at a time", cols, bytes)
	}
	for first, i := 0, 0; first < rows && err == nil; first, i = first+chunk, 1-i {
		n := min(chunk, rows-first)
		if err = m.device.Wait(s.copied[i]); err == nil {
			err = fill(s.buffers[i].Bytes, first, n, cols, t, read)
		}
		if err == nil {
			err = m.do(func(c *gpu.Context) {
				c.Upload(at+driver.Pointer(first*rowBytes), s.buffers[i], 0, n*rowBytes, s.stream)
				c.Record(s.copied[i], s.stream)
			})
		}
	}
	// The wait is needed even after an error, because no copy may still run when the call returns.
	return at, cmp.Or(err, m.do(func(c *gpu.Context) { c.Synchronize(s.stream) }))
}

// valuesAtATime limits the number of values that a goroutine decodes before it encodes them, so that the values stay in
// the core's cache. A row with more values is still decoded as a whole.
const valuesAtATime = 64 << 10

// fill decodes n rows, starting at row first, and encodes them into dst, on all cores.
func fill(dst []byte, first, n, cols int, t kernels.DType, read func([]float32, int) error) error {
	values, rowBytes := cols*sizeOf(t), pitch(cols)*sizeOf(t)
	step := max(1, valuesAtATime/cols)
	workers := min(runtime.GOMAXPROCS(0), ceilDiv(n, step))
	failed := make([]error, workers)
	var next atomic.Int64
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() {
			decoded := make([]float32, min(step, n)*cols)
			for failed[w] == nil {
				from := int(next.Add(int64(step))) - step
				if from >= n {
					return
				}
				rows := min(step, n-from)
				failed[w] = read(decoded[:rows*cols], first+from)
				for r := range rows {
					row := dst[(from+r)*rowBytes:][:rowBytes]
					encode(t, row, decoded[r*cols:(r+1)*cols])
					clear(row[values:])
				}
			}
		})
	}
	group.Wait()
	return cmp.Or(failed...) // the first error suffices, because all workers usually fail for the same reason
}
