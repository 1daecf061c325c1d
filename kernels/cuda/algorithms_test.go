package cuda

import (
	"encoding/binary"
	"flag"
	"fmt"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"testing"

	"seqembed/kernels"
	"seqembed/kernels/cuda/driver"
	"seqembed/kernels/cuda/gpu"
)

var algorithmRows = flag.Int("algorithms.rows", 32768, "rows of the products that BenchmarkAlgorithms times")

// modelShapes returns the matrix products of a layer in the form in which the backend asks cuBLAS for them. gated tells
// whether the feed-forward layer has a GEGLU.
func modelShapes(hidden, inner int, gated bool) []Product {
	up := Product{N: inner, K: hidden, Bias: true}
	if gated {
		up = Product{N: 2 * inner, K: hidden}
	}
	return []Product{
		{N: 3 * hidden, K: hidden, Bias: true},
		{N: hidden, K: hidden, Bias: true, Wide: true, Add: true},
		up,
		{N: hidden, K: inner, Bias: true, Wide: true, Add: true},
	}
}

// BenchmarkAlgorithms times the algorithms that cuBLAS offers for the matrix products of real models. It asks cuBLAS
// for algorithms for two numbers of rows, heuristicRows and the flag -algorithms.rows, and times each algorithm on a
// product with -algorithms.rows rows. The function products.choose tells which algorithm the backend itself uses.
func BenchmarkAlgorithms(b *testing.B) {
	backend, err := Open(0, Options{DType: kernels.BF16})
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
		shapes []Product
	}{
		{"dnabert-s", modelShapes(768, 3072, true)},
		{"esm2-150m", modelShapes(640, 2560, false)},
		{"esm2-650m", modelShapes(1280, 5120, false)},
		{"esm2-3b", modelShapes(2560, 10240, false)},
	} {
		for _, s := range model.shapes {
			b.Run(model.name+"/"+s.String(), func(b *testing.B) { bench.algorithms(b, s) })
		}
	}
}

// productBench holds matrices that are large enough for every product. The values of the matrices are random, because a
// GPU multiplies zeros with less power and therefore faster.
type productBench struct {
	backend          *Backend
	rows             int
	stream           gpu.Stream
	start, end       gpu.Event
	in, out, weights driver.Pointer // in also serves as the residual, and weights as the bias
	workspace        driver.Pointer
	resources        gpu.Resources
}

const widestCols = 10240 // the largest N and the largest K of the products

func newProductBench(backend *Backend, rows int) (*productBench, error) {
	d, pb := backend.device, &productBench{backend: backend, rows: rows}
	size, weights := max(2*rows*widestCols, 1<<20), 2*widestCols*2560
	r := &pb.resources
	err := d.Do(func(c *gpu.Context) {
		pb.in, pb.out = r.Alloc(c, size+256), r.Alloc(c, size)
		pb.weights, pb.workspace = r.Alloc(c, weights), r.Alloc(c, workspaceBytes)
		pb.stream, pb.start, pb.end = r.NewStream(c), r.NewTimer(c), r.NewTimer(c)
	})
	if err != nil {
		return pb, err
	}
	random := make([]byte, 16<<20)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := 0; i < len(random); i += 2 {
		binary.LittleEndian.PutUint16(random[i:], uint16(math.Float32bits(float32(rng.NormFloat64()))>>16))
	}
	return pb, d.Do(func(c *gpu.Context) {
		piece := r.Pin(c, len(random))
		copy(piece.Bytes, random)
		for at, bytes := range map[driver.Pointer]int{pb.in: size, pb.weights: weights} {
			for from := 0; from < bytes; from += len(random) {
				c.Upload(at+driver.Pointer(from), piece, 0, min(len(random), bytes-from), pb.stream)
			}
		}
		c.Synchronize(pb.stream)
	})
}

// algorithms times the algorithms that cuBLAS offers for the product s. For each algorithm it also reports whether the
// result has the same bits as the result of the first algorithm.
func (pb *productBench) algorithms(b *testing.B, s Product) {
	d, p := pb.backend.device, pb.backend.products
	want := uint32(0)
	for _, asked := range []int{heuristicRows, pb.rows} {
		plan := &plan{ProductReport: ProductReport{Product: s}}
		var offered []driver.HeuristicResult
		var why string
		err := d.Do(func(c *gpu.Context) {
			c.Fail(p.describe(plan, asked))
			c.Fail(p.setBias(plan, pb.weights))
			offered, why = p.offered(plan, asked)
		})
		if err != nil || len(offered) == 0 {
			b.Fatal(err, why)
		}
		for i := range offered {
			tile, _ := p.attribute(&offered[i].Algo, driver.ConfigTile, 4)
			cluster, _ := p.attribute(&offered[i].Algo, driver.ConfigClusterShape, 2)
			name := fmt.Sprintf("asked_%d/%d:tile_%d_cluster_%d_waves_%.2f", asked, i, tile, cluster, offered[i].Waves)
			b.Run(name, func(b *testing.B) {
				plan.algo, plan.rows, plan.Algorithm = offered[i].Algo, 0, name
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
				b.ReportMetric(2*float64(pb.rows)*float64(s.N)*float64(s.K)*float64(b.N)/seconds/1e12, "TFLOP/s")
			})
		}
		_ = d.Do(func(*gpu.Context) { p.discard(plan) })
	}
}

// time runs a product n times and returns the seconds that the n runs took by the device's clock. Before that it runs
// the product twice without timing it. The first of these two runs has other input, so that the result of another
// algorithm cannot remain in the memory.
func (pb *productBench) time(plan *plan, n int) (seconds float64, err error) {
	d, p := pb.backend.device, pb.backend.products
	var ms float32
	err = d.Do(func(c *gpu.Context) {
		run := func(in driver.Pointer) {
			done, err := p.run(pb.stream, plan, pb.rows, pb.out, in, pb.weights, pb.weights, pb.in, pb.workspace)
			if err == nil && !done {
				err = fmt.Errorf("the algorithm does not take %d rows: %v", pb.rows, plan.Refusal)
			}
			c.Fail(err)
		}
		run(pb.in + 256)
		run(pb.in)
		c.Record(pb.start, pb.stream)
		for range n {
			run(pb.in)
		}
		c.Record(pb.end, pb.stream)
		c.Synchronize(pb.stream)
		ms = c.Milliseconds(pb.start, pb.end)
	})
	return float64(ms) / 1000, err
}

// digest returns a checksum of the result of a matrix product, by which results are compared bit for bit.
func (pb *productBench) digest(s Product) (uint32, error) {
	d, h := pb.backend.device, crc32.New(crc32.MakeTable(crc32.Castagnoli))
	size, piece := 2*s.N*pb.rows, 64<<20
	if s.Wide {
		size *= 2
	}
	err := d.Do(func(c *gpu.Context) {
		var host gpu.Resources
		p := host.Pin(c, piece)
		defer host.Free(c)
		for from := 0; from < size && c.Err == nil; from += piece {
			n := min(piece, size-from)
			c.Download(p, pb.out+driver.Pointer(from), n, pb.stream)
			c.Synchronize(pb.stream)
			h.Write(p.Bytes[:n])
		}
	})
	return h.Sum32(), err
}

func (pb *productBench) close() { _ = pb.backend.device.Free(&pb.resources) }
