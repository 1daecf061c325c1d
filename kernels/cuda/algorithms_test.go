package cuda

import (
	"cmp"
	"encoding/binary"
	"flag"
	"fmt"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"testing"

	"seqembed/kernels/cuda/driver"
	"seqembed/kernels/cuda/gpu"
)

var algorithmRows = flag.Int("algorithms.rows", 32768, "rows of the products that BenchmarkAlgorithms times")

// modelShapes are the matrix products of a layer, as the backend asks cuBLAS for them.
func modelShapes(hidden, inner int, gated bool) []shape {
	up := shape{n: inner, k: hidden, bias: true}
	if gated {
		up = shape{n: 2 * inner, k: hidden}
	}
	return []shape{
		{n: 3 * hidden, k: hidden, bias: true},
		{n: hidden, k: hidden, bias: true, wide: true, add: true},
		up,
		{n: hidden, k: inner, bias: true, wide: true, add: true},
	}
}

// BenchmarkAlgorithms times every algorithm that cuBLAS offers for the products of real models, asked for the usual
// number of rows and for those that are timed. The backend takes the first of those that it is offered for the usual
// number.
func BenchmarkAlgorithms(b *testing.B) {
	backend, err := Open(0, Options{DType: BF16})
	if err != nil {
		b.Skip(err)
	}
	defer backend.Close()
	if backend.products == nil {
		b.Skip(backend.Cublas().Err)
	}
	bench, err := newProductBench(backend, *algorithmRows)
	if err != nil {
		b.Fatal(err)
	}
	defer bench.close()
	for _, model := range []struct {
		name   string
		shapes []shape
	}{
		{"dnabert-s", modelShapes(768, 3072, true)},
		{"esm2-150m", modelShapes(640, 2560, false)},
		{"esm2-650m", modelShapes(1280, 5120, false)},
		{"esm2-3b", modelShapes(2560, 10240, false)},
	} {
		for _, s := range model.shapes {
			name := s.report().shape()
			b.Run(model.name+"/"+name, func(b *testing.B) { bench.algorithms(b, s) })
		}
	}
}

// productBench holds the matrices of the largest product, with random values: zeros take less power, and so less time.
type productBench struct {
	backend          *Backend
	rows             int
	stream           gpu.Stream
	start, end       gpu.Event
	in, out, weights driver.Pointer // also read as float32, for the addend and the bias
	workspace        driver.Pointer
}

const widestCols = 10240 // columns, and inner dimension

func newProductBench(backend *Backend, rows int) (*productBench, error) {
	d, pb := backend.device, &productBench{backend: backend, rows: rows}
	size, weights := max(2*rows*widestCols, 1<<20), 2*widestCols*2560
	err := d.Do(func(c *gpu.Context) (err error) {
		for _, a := range []struct {
			at    *driver.Pointer
			bytes int
		}{{&pb.in, size + 256}, {&pb.out, size}, {&pb.weights, weights}, {&pb.workspace, workspaceBytes}} {
			if err == nil {
				*a.at, err = c.Alloc(a.bytes)
			}
		}
		if err == nil {
			pb.stream, err = c.NewStream()
		}
		if err == nil {
			pb.start, err = c.NewTimer()
		}
		if err == nil {
			pb.end, err = c.NewTimer()
		}
		return err
	})
	if err != nil {
		return pb, err
	}
	const piece = 16 << 20
	staged, err := d.NewStaging(piece)
	if err != nil {
		return pb, err
	}
	random := make([]byte, piece)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := 0; i < piece; i += 2 {
		binary.LittleEndian.PutUint16(random[i:], uint16(math.Float32bits(float32(rng.NormFloat64()))>>16))
	}
	for _, to := range []struct {
		at    driver.Pointer
		bytes int
	}{{pb.in, size}, {pb.weights, weights}} {
		for from := 0; from < to.bytes && err == nil; from += piece {
			err = staged.Send(to.at+driver.Pointer(from), min(piece, to.bytes-from), func(p []byte) error { copy(p, random); return nil })
		}
	}
	return pb, cmp.Or(err, staged.Drain(), d.Do(func(c *gpu.Context) error { staged.Free(c); return nil }))
}

// algorithms times the algorithms for a shape.
func (pb *productBench) algorithms(b *testing.B, s shape) {
	d, p := pb.backend.device, pb.backend.products
	want := uint32(0)
	for _, asked := range []int{heuristicRows, pb.rows} {
		var plan *plan
		var offered []driver.HeuristicResult
		err := d.Do(func(c *gpu.Context) (err error) {
			if plan, err = p.describe(s, asked); err == nil {
				if err = p.setBias(plan, pb.weights); err == nil {
					offered, err = p.offered(plan, asked)
				}
			}
			return cmp.Or(err, plan.unsuitable)
		})
		if err != nil {
			b.Fatal(err)
		}
		for i := range offered {
			var a *Algorithm
			_ = d.Do(func(*gpu.Context) error { a = p.read(&offered[i]); return nil })
			name := fmt.Sprintf("asked_%d/%d:tile_%d_cluster_%d_waves_%.2f", asked, i, a.Tile, a.ClusterShape, a.Waves)
			b.Run(name, func(b *testing.B) {
				plan.algo, plan.rows = offered[i].Algo, 0
				seconds, err := pb.time(plan, b.N)
				if err != nil {
					b.Skip(err)
				}
				sum, err := pb.digest(s)
				if err != nil {
					b.Fatal(err)
				}
				if want == 0 {
					want = sum
				}
				same := 0.
				if sum == want {
					same = 1
				}
				b.ReportMetric(same, "same-bits")
				b.ReportMetric(2*float64(pb.rows)*float64(s.n)*float64(s.k)*float64(b.N)/seconds/1e12, "TFLOP/s")
			})
		}
		_ = d.Do(func(*gpu.Context) error { p.discard(plan); return nil })
	}
}

// time runs a product n times, after one run that is not counted, and gives the seconds of the device's clock. What an
// algorithm before has left is overwritten with the product of other rows.
func (pb *productBench) time(plan *plan, n int) (seconds float64, err error) {
	d, p := pb.backend.device, pb.backend.products
	var ms float32
	err = d.Do(func(c *gpu.Context) error {
		run := func(in driver.Pointer) error {
			done, err := p.run(pb.stream, plan, pb.rows, pb.out, in, pb.weights, pb.weights, pb.in, pb.workspace)
			if err == nil && !done {
				err = fmt.Errorf("the algorithm does not take %d rows: %v", pb.rows, plan.report.RefusedWhy)
			}
			return err
		}
		err := cmp.Or(run(pb.in+256), run(pb.in), c.Record(pb.start, pb.stream))
		for range n {
			err = cmp.Or(err, run(pb.in))
		}
		err = cmp.Or(err, c.Record(pb.end, pb.stream), c.Synchronize(pb.stream))
		if err == nil {
			ms, err = c.Milliseconds(pb.start, pb.end)
		}
		return err
	})
	return float64(ms) / 1000, err
}

// digest is a checksum of what a product wrote.
func (pb *productBench) digest(s shape) (uint32, error) {
	d, h := pb.backend.device, crc32.New(crc32.MakeTable(crc32.Castagnoli))
	size, piece := 2*s.n*pb.rows, 64<<20
	if s.wide {
		size *= 2
	}
	err := d.Do(func(c *gpu.Context) error {
		p, err := c.Pin(piece)
		if err != nil {
			return err
		}
		defer c.Unpin(p)
		for from := 0; from < size && err == nil; from += piece {
			n := min(piece, size-from)
			err = cmp.Or(c.Download(p, pb.out+driver.Pointer(from), n, pb.stream), c.Synchronize(pb.stream))
			h.Write(p.Bytes[:n])
		}
		return err
	})
	return h.Sum32(), err
}

func (pb *productBench) close() {
	d := pb.backend.device
	_ = d.Do(func(c *gpu.Context) error {
		for _, at := range []driver.Pointer{pb.in, pb.out, pb.weights, pb.workspace} {
			c.Free(at)
		}
		c.FreeEvent(pb.start)
		c.FreeEvent(pb.end)
		c.FreeStream(pb.stream)
		return nil
	})
}
