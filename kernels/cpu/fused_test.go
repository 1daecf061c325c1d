package cpu

import (
	"fmt"
	"math"
	"testing"

	"seqembed/kernels"
)

// TestFused: an Activate or Gate gives the same bits whether its Linear is
// still held back or has run, for blocks that are not full and for outputs
// that are no whole number of panels.
func TestFused(t *testing.T) {
	forced(t, func(t *testing.T, v *variant) {
		for _, rows := range []int{1, 13, 97} {
			for _, cols := range []int{24, 400} {
				for _, op := range []string{"activate", "activate in place", "gate", "gate over the input"} {
					t.Run(fmt.Sprintf("%s/%dx%d", op, rows, cols), func(t *testing.T) {
						together := linearThen(t, v, op, rows, cols, false)
						apart := linearThen(t, v, op, rows, cols, true)
						for i := range apart {
							if math.Float32bits(together[i]) != math.Float32bits(apart[i]) {
								t.Fatalf("value %d is %v fused and %v in two steps", i, together[i], apart[i])
							}
						}
					})
				}
			}
		}
	})
}

// linearThen runs a Linear to cols (or twice as many) columns and op on it;
// in two steps it waits in between.
func linearThen(t *testing.T, v *variant, op string, rows, cols int, apart bool) []float32 {
	const inner = 389
	backend := newBackend(Options{Threads: 2}, v)
	defer backend.Close()
	s, err := backend.NewStream(kernels.Limits{Tokens: rows, Sequences: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var batch kernels.Batch
	batch.Append(make([]int32, rows))
	s.Begin(batch)
	x, out := s.Tokens(2*inner, kernels.Operand), s.Tokens(cols, kernels.Operand)
	in := s.Reuse(x, inner)
	fill(of(in).at, 5)
	width := cols
	if op == "gate" || op == "gate over the input" {
		width = 2 * cols
	}
	w, err := backend.Load(kernels.Projection, randomSource{[]int{width, inner}})
	if err != nil {
		t.Fatal(err)
	}
	bias, err := backend.Load(kernels.Vector, randomSource{[]int{width}})
	if err != nil {
		t.Fatal(err)
	}
	product := s.Tokens(width, kernels.Residual)
	fill(of(product).at, 6)
	l := kernels.Linear{Out: product, In: in, W: w, Bias: bias}
	if op == "activate in place" {
		l.Add = product
	}
	s.Linear(l)
	if apart {
		if err := s.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	switch op {
	case "gate":
		s.Gate(kernels.Gate{Out: out, In: product})
	case "gate over the input":
		out = s.Reuse(x, cols)
		s.Gate(kernels.Gate{Out: out, In: product})
	default:
		s.Activate(kernels.Activate{X: product})
		out = product
	}
	values := make([]float32, rows*cols)
	s.Read(values, out)
	if err := s.Wait(); err != nil {
		t.Fatal(err)
	}
	return values
}
