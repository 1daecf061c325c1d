package kernelstest

import (
	"math"
	"testing"

	"seqembed/kernels"
	"seqembed/kernels/ref"
)

// Bench is the program that a Case builds, with random weights and inputs. Weights and inputs are the same for every
// backend. The inputs of a sequence do not depend on the other sequences in the batch. Weights and inputs are values of
// the operand type, so no backend rounds them.
type Bench struct {
	*kernels.Program
	t          testing.TB
	model      kernels.Model
	operands   kernels.DType
	lens, tags []int  // length of each sequence, and the seed of its input (see Case.Run)
	seed       uint64 // seed of the previous weight
	inputs     uint64 // number of inputs so far
}

// Tensor is a kernels.Source with values in memory.
type Tensor struct {
	Dims   []int
	Values []float32
}

// Shape returns Dims.
func (m Tensor) Shape() []int { return m.Dims }

// ReadRows copies rows and never fails.
func (m Tensor) ReadRows(dst []float32, first int) error {
	copy(dst, m.Values[first*m.Dims[len(m.Dims)-1]:])
	return nil
}

// Load loads parts onto the backend.
func (b *Bench) Load(role kernels.Role, parts ...kernels.Source) kernels.Weight {
	b.t.Helper()
	w, err := b.model.Load(role, parts...)
	if err != nil {
		b.t.Fatal(err)
	}
	return w
}

// Input returns a value of random rows [T, cols].
func (b *Bench) Input(cols int) kernels.Value {
	b.inputs++
	var rows []float32
	total := 0
	for i, n := range b.lens {
		rows = append(rows, normal(b.inputs<<32|uint64(b.tags[i]), n*cols)...)
		total += n
	}
	return b.Rows32(total, cols, rows)
}

// Rows32 returns a value with the given rows, rounded to the operand type.
func (b *Bench) Rows32(rows, cols int, values []float32) kernels.Value {
	table := b.Load(kernels.Lookup, Tensor{[]int{rows, cols}, ref.Round(b.operands, values)})
	return b.Embed(kernels.Embed{Table: table, Scale: 1, Mask: kernels.NoMask})
}

// Table returns a random lookup table with Vocabulary rows.
func (b *Bench) Table(cols int) kernels.Weight {
	return b.Load(kernels.Lookup, Tensor{[]int{Vocabulary, cols}, b.draw(Vocabulary*cols, 1, 0)})
}

// Projection loads a random [out, in] matrix in the given number of stacked parts. It is scaled so that outputs are
// about as large as inputs.
func (b *Bench) Projection(out, in, parts int) kernels.Weight {
	var sources []kernels.Source
	for p := range parts {
		rows := out*(p+1)/parts - out*p/parts
		sources = append(sources, Tensor{[]int{rows, in}, b.draw(rows*in, 1/math.Sqrt(float64(in)), 0)})
	}
	return b.Load(kernels.Projection, sources...)
}

// Vector loads n random values. The parameter spread is their standard deviation, and middle is their mean.
func (b *Bench) Vector(n int, spread, middle float64) kernels.Weight {
	return b.Load(kernels.Vector, Tensor{[]int{n}, b.draw(n, spread, middle)})
}

// Product returns a Linear with random weights and a bias, whose result has cols columns after the activation.
func (b *Bench) Product(cols, in int, then kernels.Activation) kernels.Linear {
	if then.Gates() {
		cols *= 2
	}
	return kernels.Linear{W: b.Projection(cols, in, 1), Bias: b.Vector(cols, 1, 0), Then: then}
}

// Normalize returns a Norm with random weights.
func (b *Bench) Normalize(cols int, eps float32) kernels.Norm {
	return kernels.Norm{Gain: b.Vector(cols, 0.1, 1), Bias: b.Vector(cols, 0.1, 0), Eps: eps}
}

// observed is the largest number of columns that Stored returns.
const observed = 96

// Stored returns columns of v in the operand type, as a matrix product reads them: all columns or, if v has more
// columns than the constant observed, that many evenly spaced columns. It appends a product with a matrix that has a
// single 1 in each row. Such a product is exact.
func (b *Bench) Stored(v kernels.Value) kernels.Value {
	cols := b.Cols(v)
	n := min(cols, observed)
	pick := make([]float32, n*cols)
	for i := range n {
		pick[i*cols+i*cols/n] = 1
	}
	return b.Linear(v, kernels.Linear{W: b.Load(kernels.Projection, Tensor{[]int{n, cols}, pick})}, kernels.None)
}

func (b *Bench) draw(n int, spread, middle float64) []float32 {
	b.seed++
	values := normal(b.seed, n)
	for i, v := range values {
		values[i] = float32(float64(v)*spread + middle)
	}
	return ref.Round(b.operands, values)
}
