// Package cpu runs the operations of package kernels on the cores of this machine, in float32 or with bfloat16 operands
// of products.
//
// When the matrix of a Linear is loaded, it is packed into panels of 16 output columns, in blocks along the inner
// dimension, so that the product reads it sequentially. Activations are read in place. A task of attention packs the
// keys and values of its sequence and head in the same way, and uses the same matrix product. Activation functions are
// applied to each block of a product while it is in the cache, except for a GEGLU whose number of result columns is not
// a multiple of 16. A fixed pool of worker goroutines runs the tasks into which an operation is divided.
//
// In bfloat16 a product reads pairs of values, neighbours along the inner dimension, and adds in float32. A pair is as
// large as a float32; both are called a word. Packing, tiles and tasks count words. A value that products read is
// rounded once, when it is written. The residual stream, LayerNorm, softmax and pooling are not computed in bfloat16.
//
// The inner loops exist in portable Go and in assembly for AVX2 with FMA, for AVX-512 and for NEON. Inner loops for
// pairs of bfloat16 exist in assembly for AVX512_BF16 and, on arm64, for BFMMLA. The programs in _gen and _gen/neon
// generate the assembly. A new backend chooses the best that the machine supports. The build tag noasm leaves the
// assembly out.
//
// The division of a product into tasks never changes a bit of its result: each output element is summed over the inner
// dimension in blocks of a fixed size, in order, whatever the number of rows, threads, or sequences in the batch.
//
// The package must not depend on the model that it runs.
package cpu

import (
	"runtime"

	"seqembed/kernels"
)

// Backend computes on the CPU. It implements kernels.Backend.
type Backend struct {
	workers *workerPool
	variant *variant
	format  format
}

// Options configures a backend.
type Options struct {
	// Threads is the number of threads; 0 means as many as GOMAXPROCS.
	Threads int
	// BF16 selects bfloat16 operands of products, rounded to nearest, if HasBF16 returns true. If HasBF16 returns
	// false, only the projections, the matrices of Linear operations, are stored as bfloat16, which halves their
	// memory. The projections are converted to float32 a block at a time, and the arithmetic stays float32. In that
	// case a checkpoint with bfloat16 weights gives the same bits as without BF16.
	BF16 bool
}

// format is the type of the operands of products.
type format uint8

const (
	float32s    format = iota
	bf16Weights        // matrices of Linear operations in bfloat16, multiplied in float32
	bf16               // both operands in bfloat16
)

// HasBF16 reports whether this machine has instructions that multiply bfloat16, and this build uses them.
func HasBF16() bool { return best().pairs.fast }

// New returns a float32 backend with the given number of threads.
func New(threads int) *Backend { return Open(Options{Threads: threads}) }

// Open returns a backend that uses the best instruction set of this machine. Until Close, the backend owns one
// goroutine less than it has threads.
func Open(o Options) *Backend {
	f := float32s
	switch {
	case o.BF16 && HasBF16():
		f = bf16
	case o.BF16:
		f = bf16Weights
	}
	return newBackend(o.Threads, best(), f)
}

func newBackend(threads int, v *variant, f format) *Backend {
	if threads < 1 {
		threads = runtime.GOMAXPROCS(0)
	}
	return &Backend{workers: newWorkerPool(threads), variant: v, format: f}
}

// Name identifies everything that determines the bits of the results.
func (b *Backend) Name() string {
	name := "cpu " + b.variant.name + " " + runtime.GOARCH
	return name + [...]string{"", " bf16 weights", " bf16"}[b.format]
}

// Portable reports whether the inner loops are in plain Go, which is many times slower than assembly.
func (b *Backend) Portable() bool { return b.variant.name == portable().name }

// Threads returns the largest number of tasks that run at the same time.
func (b *Backend) Threads() int { return b.workers.size }

// Close stops the workers.
func (b *Backend) Close() error {
	b.workers.stop()
	return nil
}

// NewModel returns an empty set of weights.
func (b *Backend) NewModel() kernels.Model { return &model{backend: b} }

// model holds weights. All except vectors are in an arena, memory that is freed all at once.
type model struct {
	backend *Backend
	weights arena
}

// Close frees the weights.
func (m *model) Close() error { return m.weights.free() }

// Load reads the parts and copies them. It packs the matrix of a Linear into panels of 16 output columns, several
// panels in parallel.
func (m *model) Load(role kernels.Role, parts ...kernels.Source) (kernels.Weight, error) {
	rows, cols, err := kernels.StackedDims(role, parts)
	if err != nil {
		return nil, err
	}
	w := &weight{role: role, rows: rows, cols: cols}
	if role == kernels.Vector {
		w.flat = aligned((cols + panelCols - 1) &^ (panelCols - 1))[:cols] // products read a bias in whole panels
		return w, kernels.ReadStacked(parts, w.flat, 0)
	}
	if role == kernels.Lookup {
		if w.flat, err = m.weights.floats(rows * cols); err != nil {
			return nil, err
		}
		return w, kernels.ReadStacked(parts, w.flat, 0)
	}
	var fill func(index int, rows []float32, ld int)
	switch m.backend.format {
	case float32s:
		w.packed = newPanels(rows, cols)
		fill = w.packed.fill
		w.packed.at, err = m.weights.floats(w.packed.size())
	case bf16Weights:
		w.packed = newPanels(rows, cols)
		fill = w.packed.fillHalf
		w.packed.half, err = m.weights.halves(w.packed.size())
	case bf16:
		w.packed = newPanels(rows, pairs(cols))
		fill = func(index int, rows []float32, ld int) {
			w.packed.fillPairs(index, rows, ld)
			m.backend.variant.pairs.arrangePanel(w.packed, index)
		}
		w.packed.at, err = m.weights.floats(w.packed.size())
	}
	if err != nil {
		return nil, err
	}
	strips := make([][]float32, m.backend.workers.size)
	failed := make([]error, w.packed.count)
	m.backend.workers.run(w.packed.count, func(worker, p int) {
		if strips[worker] == nil {
			strips[worker] = make([]float32, panelCols*cols)
		}
		first := p * panelCols
		strip := strips[worker][:min(panelCols, rows-first)*cols]
		if err := kernels.ReadStacked(parts, strip, first); err != nil {
			failed[p] = err
			return
		}
		fill(p, strip, cols)
	})
	for _, err := range failed {
		if err != nil {
			return nil, err // usually all panels fail for the same reason, so the first error suffices
		}
	}
	return w, nil
}

// weight is a loaded tensor. The matrix of a Linear is packed into panels; any other tensor is in flat.
type weight struct {
	role       kernels.Role
	rows, cols int
	packed     *panels
	flat       []float32 // [rows, cols]
}

func (w *weight) Role() kernels.Role { return w.role }
func (w *weight) Dims() (int, int)   { return w.rows, w.cols }
