// Package cpu runs the operations of kernels on the cores of this machine in
// float32.
//
// Weights are packed once at load into panels of 16 output columns, in blocks
// along the inner dimension, so that a matrix product reads them in order;
// activations are read in place. Attention packs the keys and values of a
// sequence the same way and uses the same product. A GELU or GEGLU that follows
// a product is applied to each block of it in the cache. Work is cut into
// tasks that a fixed crew of goroutines takes in turn.
//
// The inner loops exist as portable Go and in assembly for AVX2 with FMA and
// for AVX-512, written by the program in _gen; the best that the machine runs
// is chosen when a backend is made. The build tag noasm leaves the assembly
// out.
//
// How a product is cut never changes a bit: each output element is summed
// over the inner dimension in blocks of a fixed size, in order, whatever the
// number of rows, of threads or of sequences in the batch.
//
// The package must not know which model it runs.
package cpu

import (
	"fmt"
	"runtime"

	"seqembed/kernels"
)

// Backend computes on the CPU. It implements kernels.Backend.
type Backend struct {
	crew    *crew
	variant *variant
	weights arena
}

// New returns a backend of that many threads; all cores when threads is 0. It
// uses the best instructions of this machine, and owns threads-1 goroutines
// until Close.
func New(threads int) *Backend { return newBackend(threads, best()) }

func newBackend(threads int, v *variant) *Backend {
	if threads < 1 {
		threads = runtime.GOMAXPROCS(0)
	}
	return &Backend{crew: newCrew(threads), variant: v}
}

// Name says what decides the bits of the results.
func (b *Backend) Name() string { return "cpu " + b.variant.name + " " + runtime.GOARCH }

// Threads is the number of tasks that run at the same time.
func (b *Backend) Threads() int { return b.crew.size }

// Close stops the crew and frees the weights.
func (b *Backend) Close() error {
	b.crew.stop()
	return b.weights.free()
}

// NewStream allocates a stream for batches within limits. Operations run
// inside the call that enqueues them, a Linear inside the next call.
func (b *Backend) NewStream(limits kernels.Limits) (kernels.Stream, error) {
	if limits.Tokens < 1 || limits.Sequences < 1 {
		return nil, fmt.Errorf("a stream needs room for one token and one sequence, not %+v", limits)
	}
	return newStream(b.crew, b.variant, limits), nil
}

// Load reads the parts, packing projections; panels are packed in parallel.
func (b *Backend) Load(role kernels.Role, parts ...kernels.Source) (kernels.Weight, error) {
	rows, cols, err := kernels.StackedDims(role, parts)
	if err != nil {
		return nil, err
	}
	w := &weight{role: role, rows: rows, cols: cols}
	if role == kernels.Vector {
		return w, w.join(parts)
	}
	read := stackedReader(parts)
	if role == kernels.Lookup {
		if w.flat, err = b.weights.floats(rows * cols); err != nil {
			return nil, err
		}
		return w, read(w.flat, 0)
	}
	w.packed = newPanels(rows, cols)
	if w.packed.at, err = b.weights.floats(w.packed.size()); err != nil {
		return nil, err
	}
	strips := make([][]float32, b.crew.size)
	failed := make([]error, w.packed.count)
	b.crew.run(w.packed.count, func(worker, p int) {
		if strips[worker] == nil {
			strips[worker] = make([]float32, panelCols*cols)
		}
		first := p * panelCols
		strip := strips[worker][:min(panelCols, rows-first)*cols]
		if err := read(strip, first); err != nil {
			failed[p] = err
			return
		}
		w.packed.fill(p, strip, cols)
	})
	for _, err := range failed {
		if err != nil {
			return nil, err // one is enough: all parts usually fail together
		}
	}
	return w, nil
}

// weight is a loaded tensor: packed for a projection, flat otherwise.
type weight struct {
	role       kernels.Role
	rows, cols int
	packed     *panels
	flat       []float32 // [rows, cols]
}

func (w *weight) Role() kernels.Role { return w.role }
func (w *weight) Dims() (int, int)   { return w.rows, w.cols }

func (w *weight) join(parts []kernels.Source) error {
	w.flat = make([]float32, w.cols)
	rest := w.flat
	for _, p := range parts {
		n := p.Shape()[0]
		if err := p.ReadRows(rest[:n], 0); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// stackedReader reads rows of matrices that lie one below the other.
func stackedReader(parts []kernels.Source) func(dst []float32, first int) error {
	return func(dst []float32, first int) error {
		for _, p := range parts {
			rows, cols := p.Shape()[0], p.Shape()[1]
			if first < rows && len(dst) > 0 {
				n := min(len(dst), (rows-first)*cols)
				if err := p.ReadRows(dst[:n], first); err != nil {
					return err
				}
				dst, first = dst[n:], rows
			}
			first -= rows
		}
		return nil
	}
}
