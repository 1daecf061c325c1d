package cuda

import (
	"encoding/binary"
	"math"
	"unsafe"

	"seqembed/kernels/cuda/driver"
)

// fakeCublas is a cuBLAS that offers algorithms and checks the descriptors that it receives. It computes nothing.
type fakeCublas struct {
	gpu     *fakeGPU
	objects map[driver.Handle]map[int32]uint64 // attributes of descriptors, layouts and preferences
	refused func(rows int) bool                // whether the algorithm does not support that number of rows
	none    bool                               // the heuristic offers no algorithm that sums in one piece
	free    bool                               // the test sets Options.FreeAlgorithm
	large   bool                               // a third algorithm, with tile128x128, is offered for largeRows rows
	unknown map[int32]bool                     // attributes of algorithms that the library does not know
	answer  driver.Status                      // status that the heuristic returns
	queries []uint64                           // the rows of each heuristic query
	checks  []uint64                           // the rows of each check
	runs    int
}

// Attributes under which the fake stores the arguments with which a layout or a descriptor was created.
const (
	fakeType = 100 + iota
	fakeRows
	fakeLD
	fakeCompute
)

func newFakeCublas(f *fakeGPU) *fakeCublas {
	return &fakeCublas{gpu: f, objects: map[driver.Handle]map[int32]uint64{}, refused: func(int) bool { return false }}
}

func (c *fakeCublas) find(int) (*driver.CublasLt, []Attempt, error) {
	return c.functions(), []Attempt{{Path: "libcublasLt.so.12"}}, nil
}

func (c *fakeCublas) make(to *driver.Handle, attributes map[int32]uint64) driver.Status {
	*to = c.gpu.object()
	c.objects[*to] = attributes
	return 0
}

func (c *fakeCublas) destroy(h driver.Handle) driver.Status {
	if c.objects[h] == nil {
		c.gpu.t.Errorf("cuBLAS is to destroy %d, which does not exist", h)
	}
	delete(c.objects, h)
	return 0
}

func (c *fakeCublas) set(h driver.Handle, attribute int32, value *uint64, bytes uint64) driver.Status {
	raw := make([]byte, 8)
	binary.LittleEndian.PutUint64(raw, *value)
	clear(raw[bytes:])
	c.objects[h][attribute] = binary.LittleEndian.Uint64(raw)
	return 0
}

func (c *fakeCublas) functions() *driver.CublasLt {
	t := c.gpu.t
	return &driver.CublasLt{
		Version: func() uint64 { return 120405 },
		Create:  func(h *driver.Handle) driver.Status { return c.make(h, map[int32]uint64{}) },
		Destroy: c.destroy,
		DescCreate: func(h *driver.Handle, compute, scale int32) driver.Status {
			if scale != driver.TypeFloat32 {
				t.Errorf("the scale type is %d", scale)
			}
			return c.make(h, map[int32]uint64{fakeCompute: uint64(compute)})
		},
		DescDestroy: c.destroy,
		DescSet:     c.set,
		LayoutCreate: func(h *driver.Handle, dataType int32, rows, cols uint64, ld int64) driver.Status {
			return c.make(h, map[int32]uint64{fakeType: uint64(dataType), fakeRows: rows, driver.LayoutCols: cols, fakeLD: uint64(ld)})
		},
		LayoutDestroy:     c.destroy,
		LayoutSet:         c.set,
		PreferenceCreate:  func(h *driver.Handle) driver.Status { return c.make(h, map[int32]uint64{}) },
		PreferenceDestroy: c.destroy,
		PreferenceSet:     c.set,
		AlgoHeuristic: func(_, _, _, _, _, d, preference driver.Handle, wanted int32, found *driver.HeuristicResult, count *int32) driver.Status {
			p := c.objects[preference]
			reduction, ok := p[driver.PreferenceReduction]
			if ok == c.free || reduction != 0 || p[driver.PreferenceWorkspace] != 32<<20 {
				t.Errorf("the heuristic is asked with the preferences %v", p)
			}
			c.queries = append(c.queries, c.objects[d][driver.LayoutCols])
			// The first algorithm offered splits the inner dimension, as it often does in the real cuBLAS.
			list := unsafe.Slice(found, wanted)
			list[0].Algo[0], list[0].Algo[1] = 1, 4
			list[1].Algo[0], list[1].Algo[1] = 2, 1
			for i := range list[:2] {
				list[i].Workspace, list[i].Waves = uint64(i+1)<<20, 0.75
			}
			*count = min(wanted, 2)
			if c.large && c.objects[d][driver.LayoutCols] == largeRows {
				list[2].Algo[0], list[2].Algo[1] = 3, 1
				*count = 3
			}
			if c.none {
				*count = 1
			}
			return c.answer
		},
		AlgoConfig: func(a *driver.MatmulAlgo, attribute int32, value *uint64, bytes uint64, written *uint64) driver.Status {
			size := uint64(4)
			if attribute == driver.ConfigInnerShape || attribute == driver.ConfigClusterShape {
				size = 2
			}
			if c.unknown[attribute] || bytes != size {
				return 7
			}
			*value, *written = 0, bytes
			switch attribute {
			case driver.ConfigID:
				*value = a[0]
			case driver.ConfigSplitK:
				*value = a[1]
			case driver.ConfigReduction:
			case driver.ConfigTile:
				*value = map[uint64]uint64{1: 11, 2: 21, 3: tile128x128}[a[0]]
			default:
				*value = 10*a[0] + uint64(attribute)
			}
			return 0
		},
		AlgoCheck: func(_, _, _, b, _, d driver.Handle, a *driver.MatmulAlgo, found *driver.HeuristicResult) driver.Status {
			rows := c.objects[d][driver.LayoutCols]
			c.checks = append(c.checks, rows)
			if rows != c.objects[b][driver.LayoutCols] || a[0] != c.chosen() {
				t.Errorf("algorithm %d is checked for %d and %d rows", a[0], rows, c.objects[b][driver.LayoutCols])
			}
			if c.refused(int(rows)) {
				return 15
			}
			found.Workspace = 1 << 20
			return 0
		},
		Matmul: c.matmul,
	}
}

// chosen returns the number of the algorithm that the backend must use unless c.free is set.
func (c *fakeCublas) chosen() uint64 {
	if c.large {
		return 3
	}
	return 2
}

func (c *fakeCublas) matmul(m driver.MatmulCall) driver.Status {
	gpu := c.gpu
	gpu.mu.Lock()
	defer gpu.mu.Unlock()
	c.runs++
	alpha := math.Float32frombits(binary.LittleEndian.Uint32(gpu.host(m.Alpha, 4)))
	beta := math.Float32frombits(binary.LittleEndian.Uint32(gpu.host(m.Beta, 4)))
	desc, aL, bL, dL := c.objects[m.Desc], c.objects[m.ALayout], c.objects[m.BLayout], c.objects[m.DLayout]
	gpu.bytes(uint64(m.Workspace), int(m.WorkspaceBytes))
	if desc[driver.DescTransA] != driver.OperationT || desc[driver.DescTransB] != driver.OperationN ||
		desc[fakeCompute] != driver.Compute32F || aL[fakeRows] != bL[fakeRows] ||
		aL[driver.LayoutCols] != dL[fakeRows] || bL[driver.LayoutCols] != dL[driver.LayoutCols] ||
		(m.Algo[0] == c.chosen()) == c.free || alpha != 1 || beta == 0 && m.C != m.D {
		gpu.t.Errorf("cublasLtMatmul of %v: %v · %v into %v with alpha %v, beta %v", desc, aL, bL, dL, alpha, beta)
		return 7
	}
	if desc[driver.DescEpilogue] == driver.EpilogueBias && desc[driver.DescBiasType] != dL[fakeType] {
		gpu.t.Errorf("the bias is of type %d and the output of %d", desc[driver.DescBiasType], dL[fakeType])
	}
	gpu.enqueue(m.Stream, func() {})
	return 0
}
