package cuda

import (
	"encoding/binary"
	"math"
	"testing"
	"unsafe"
)

// fakeCublas computes what its descriptors say, by columns, on a fake device.
type fakeCublas struct {
	gpu     *fakeGPU
	objects map[handle]map[int32]uint64 // attributes of descriptors, layouts and preferences
	refused func(rows int) bool         // row counts that the algorithm does not take
	none    bool                        // the heuristic finds no algorithm in one piece
	free    bool                        // any algorithm may be asked for
	large   bool                        // for many rows there is a third algorithm, with a tile of 128 by 128
	unknown map[int32]bool              // attributes of algorithms that it does not know
	answer  status                      // of the heuristic
	queries []uint64                    // the rows of each heuristic query
	checks  []uint64                    // the rows of each check
	runs    int
}

// Attributes that a fake layout keeps under numbers of its own.
const (
	fakeType = 100 + iota
	fakeRows
	fakeLD
	fakeCompute
)

func newFakeCublas(f *fakeGPU) *fakeCublas {
	return &fakeCublas{gpu: f, objects: map[handle]map[int32]uint64{}, refused: func(int) bool { return false }}
}

func (c *fakeCublas) find(int) (*cublasLt, []Attempt, error) {
	return c.functions(), []Attempt{{Path: "libcublasLt.so.12"}}, nil
}

func (c *fakeCublas) make(to *handle, attributes map[int32]uint64) status {
	*to = c.gpu.object()
	c.objects[*to] = attributes
	return 0
}

func (c *fakeCublas) destroy(h handle) status {
	if c.objects[h] == nil {
		c.gpu.t.Errorf("cuBLAS is to destroy %d, which does not exist", h)
	}
	delete(c.objects, h)
	return 0
}

func (c *fakeCublas) set(h handle, attribute int32, value *uint64, bytes uint64) status {
	raw := make([]byte, 8)
	binary.LittleEndian.PutUint64(raw, *value)
	clear(raw[bytes:])
	c.objects[h][attribute] = binary.LittleEndian.Uint64(raw)
	return 0
}

func (c *fakeCublas) functions() *cublasLt {
	t := c.gpu.t
	return &cublasLt{
		version: func() uint64 { return 120405 },
		create:  func(h *handle) status { return c.make(h, map[int32]uint64{}) },
		destroy: c.destroy,
		descCreate: func(h *handle, compute, scale int32) status {
			if scale != typeFloat32 {
				t.Errorf("the scale type is %d", scale)
			}
			return c.make(h, map[int32]uint64{fakeCompute: uint64(compute)})
		},
		descDestroy: c.destroy,
		descSet:     c.set,
		layoutCreate: func(h *handle, dataType int32, rows, cols uint64, ld int64) status {
			return c.make(h, map[int32]uint64{fakeType: uint64(dataType), fakeRows: rows, layoutCols: cols, fakeLD: uint64(ld)})
		},
		layoutDestroy:     c.destroy,
		layoutSet:         c.set,
		preferenceCreate:  func(h *handle) status { return c.make(h, map[int32]uint64{}) },
		preferenceDestroy: c.destroy,
		preferenceSet:     c.set,
		heuristic: func(_, _, _, _, _, d, preference handle, wanted int32, found *heuristicResult, count *int32) status {
			p := c.objects[preference]
			reduction, ok := p[preferenceReduction]
			if ok == c.free || reduction != 0 || p[preferenceWorkspace] != 32<<20 {
				t.Errorf("the heuristic is asked with the preferences %v", p)
			}
			c.queries = append(c.queries, c.objects[d][layoutCols])
			// The first choice splits the inner dimension, as cuBLAS often has it.
			list := unsafe.Slice(found, wanted)
			list[0].algo[0], list[0].algo[1] = 1, 4
			list[1].algo[0], list[1].algo[1] = 2, 1
			for i := range list[:2] {
				list[i].workspace, list[i].waves = uint64(i+1)<<20, 0.75
			}
			*count = min(wanted, 2)
			if c.large && c.objects[d][layoutCols] == largeRows {
				list[2].algo[0], list[2].algo[1] = 3, 1
				*count = 3
			}
			if c.none {
				*count = 1
			}
			return c.answer
		},
		algoConfig: func(a *matmulAlgo, attribute int32, value *uint64, bytes uint64, written *uint64) status {
			size := uint64(4)
			if attribute == configInnerShape || attribute == configClusterShape {
				size = 2
			}
			if c.unknown[attribute] || bytes != size {
				return 7
			}
			*value, *written = 0, bytes
			switch attribute {
			case configID:
				*value = a[0]
			case configSplitK:
				*value = a[1]
			case configReduction:
			case configTile:
				*value = map[uint64]uint64{1: 11, 2: 21, 3: tile128x128}[a[0]]
			default:
				*value = 10*a[0] + uint64(attribute)
			}
			return 0
		},
		algoCheck: func(_, _, _, b, _, d handle, a *matmulAlgo, found *heuristicResult) status {
			rows := c.objects[d][layoutCols]
			c.checks = append(c.checks, rows)
			if rows != c.objects[b][layoutCols] || a[0] != c.chosen() {
				t.Errorf("algorithm %d is checked for %d and %d rows", a[0], rows, c.objects[b][layoutCols])
			}
			if c.refused(int(rows)) {
				return 15
			}
			found.workspace = 1 << 20
			return 0
		},
		matmul: c.matmul,
	}
}

// chosen is the algorithm that is to be used where none is free.
func (c *fakeCublas) chosen() uint64 {
	if c.large {
		return 3
	}
	return 2
}

// columns reads a column-major matrix; element (r, c) is out[c][r].
func (c *fakeCublas) columns(at devicePtr, layout map[int32]uint64) ([][]float32, *fakeMatrix) {
	t := map[uint64]DType{typeFloat32: FP32, typeFloat16: FP16, typeBfloat16: BF16}[layout[fakeType]]
	m := c.gpu.matrix(uint64(at), int(layout[layoutCols]), int(layout[fakeRows]), int(layout[fakeLD]), t)
	list := make([][]float32, layout[layoutCols])
	for i := range list {
		list[i] = m.row(i)
	}
	return list, m
}

func (c *fakeCublas) matmul(m matmulCall) status {
	gpu := c.gpu
	gpu.mu.Lock()
	defer gpu.mu.Unlock()
	c.runs++
	scalars := gpu.host(m.alpha, 4)
	alpha := math.Float32frombits(binary.LittleEndian.Uint32(scalars))
	beta := math.Float32frombits(binary.LittleEndian.Uint32(gpu.host(m.beta, 4)))
	copied := func(h handle) map[int32]uint64 {
		attributes := map[int32]uint64{}
		for k, v := range c.objects[h] {
			attributes[k] = v
		}
		return attributes
	}
	desc, aL, bL, cL, dL := copied(m.desc), copied(m.aLayout), copied(m.bLayout), copied(m.cLayout), copied(m.dLayout)
	gpu.bytes(uint64(m.workspace), int(m.workspaceBytes))
	if desc[descTransA] != operationT || desc[descTransB] != operationN || desc[fakeCompute] != compute32F || aL[fakeRows] != bL[fakeRows] ||
		aL[layoutCols] != dL[fakeRows] || bL[layoutCols] != dL[layoutCols] || (m.algo[0] == c.chosen()) == c.free ||
		alpha != 1 || beta == 0 && m.c != m.d {
		gpu.t.Errorf("cublasLtMatmul of %v: %v · %v into %v with alpha %v, beta %v", desc, aL, bL, dL, alpha, beta)
		return 7
	}
	gpu.enqueue(m.stream, func() {
		a, _ := c.columns(m.a, aL)
		b, _ := c.columns(m.b, bL)
		add, _ := c.columns(m.c, cL)
		_, d := c.columns(m.d, dL)
		bias := make([]float32, len(a))
		if desc[descEpilogue] == epilogueBias {
			if desc[descBiasType] != dL[fakeType] {
				gpu.t.Errorf("the bias is of type %d and the output of %d", desc[descBiasType], dL[fakeType])
			}
			bias = (&fakeMatrix{gpu.bytes(desc[descBias], d.t.size()*len(a)), d.t, len(a), len(a)}).row(0)
		}
		for j := range b {
			column := make([]float32, len(a))
			for i := range a {
				column[i] = alpha*dot(a[i], b[j]) + bias[i]
				if beta != 0 {
					column[i] += beta * add[j][i]
				}
			}
			d.set(j, 0, column)
		}
	})
	return 0
}

func TestCublasLayoutsMatchTheHeaders(t *testing.T) {
	var r heuristicResult
	if unsafe.Sizeof(r) != 96 || unsafe.Sizeof(r.algo) != 64 || unsafe.Offsetof(r.workspace) != 64 || unsafe.Offsetof(r.state) != 72 {
		t.Errorf("a heuristic result has %d bytes, %d of them an algorithm", unsafe.Sizeof(r), unsafe.Sizeof(r.algo))
	}
}
