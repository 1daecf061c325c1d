package cuda

import (
	"flag"
	"math/rand/v2"
	"testing"

	"seqembed/kernels"
	"seqembed/kernels/cuda/driver"
	"seqembed/kernels/kernelstest"
)

func noCublas(int) (*driver.CublasLt, []Attempt, error) { return nil, nil, errNoCublas }

func openFake(t *testing.T, f *fakeGPU, dtype DType, find findCublas) *Backend {
	t.Helper()
	b, err := open(f.driver(), 0, Options{DType: dtype}, f.images(), find)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestConformanceOfTheLaunches runs the whole suite on the fake device, whose
// kernels are plain loops: what is tested is which kernels are launched, with
// which parameters, in which order.
func TestConformanceOfTheLaunches(t *testing.T) {
	if raceDetector {
		t.Skip("the reference's loops take a minute with the race detector; TestBlockInEveryType crosses the same goroutines")
	}
	shortSequences(t)
	known := new(kernelstest.Known)
	// The software GPU runs every type both ways; here a type of 16 bits stands for the other.
	for name, dtypes := range map[string][]DType{"own products": {FP32, BF16}, "cuBLAS": {FP32, FP16}} {
		for _, dtype := range dtypes {
			operands := operandTypes[dtype]
			t.Run(name+"/"+dtype.String(), func(t *testing.T) {
				seed, suite := uint64(0), kernelstest.Run
				if name == "cuBLAS" {
					suite = kernelstest.RunProducts
				}
				suite(t, operands, known, func() kernels.Backend {
					f := newFake(t)
					if seed++; seed%3 != 0 {
						f.eagerness = rand.New(rand.NewPCG(seed, 1))
					}
					find := noCublas
					if name == "cuBLAS" {
						c := newFakeCublas(f)
						c.refused = func(rows int) bool { return rows == 31 && dtype == FP32 } // these fall back
						find = c.find
					}
					return settling{openFake(t, f, dtype, find), f}
				})
			})
		}
	}
}

// settling checks that closing a backend gives everything back.
type settling struct {
	*Backend
	fake *fakeGPU
}

func (s settling) Close() error {
	err := s.Backend.Close()
	s.fake.settled()
	return err
}

// shortSequences leaves out the long ones, which test kernels and not how they
// are launched, and of which the reference takes its time.
func shortSequences(t *testing.T) {
	before := flag.Lookup("test.short").Value.String()
	if err := flag.Set("test.short", "true"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { flag.Set("test.short", before) })
}
