// Package kernelstest is the conformance suite that every backend of kernels
// passes, and every variant of a backend: each operation against the
// reference over ragged batches and awkward sizes, results that repeat bit
// for bit, and results that do not depend on what else is in the batch.
//
// A tolerance stands here and nowhere else. It is relative: a backend may err
// at most twice as much against the float64 reference as plain loops of the
// same precision do, with a floor of a few roundings where those loops happen
// to be almost exact.
package kernelstest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"seqembed/kernels"
	"seqembed/kernels/ref"
)

// allowance is how many times the error of the baseline a backend may have.
const allowance = 2

// floorFloat32 is the relative error that is always allowed: four roundings
// of float32, the chain of the shortest operation (scale, turn, add, round).
const floorFloat32 = 4 * 0x1p-24

// lengths are sequence lengths around the sizes of tiles and vectors.
var lengths = []int{1, 2, 31, 32, 33, 63, 64, 65, 97, 127, 128, 129, 257, 1025}

// ragged is a batch that mixes them, in no order.
var ragged = []int{65, 1, 129, 31, 257, 2, 64, 33, 97, 32, 1, 127, 63, 128}

// Run holds a float32 backend to the whole suite. open is called once for
// each test and returns a fresh backend.
func Run(t *testing.T, open func() kernels.Backend) {
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) {
			b := open()
			defer b.Close()
			c.compare(t, b)
			c.repeat(t, b)
			c.alone(t, b)
		})
	}
	t.Run("errors", func(t *testing.T) {
		b := open()
		defer b.Close()
		stickyErrors(t, b)
	})
	t.Run("copies", func(t *testing.T) {
		b := open()
		defer b.Close()
		copies(t, b)
	})
}

// bench is what one case runs on: a stream with a batch begun, and the
// weights and inputs made from the case's seed.
type bench struct {
	t       *testing.T
	backend kernels.Backend
	kernels.Stream
	batch kernels.Batch
	input func(cols int) []float32 // random rows of the batch, the same for every backend and packing
	seed  uint64
}

// a case builds its operations on a bench and returns the buffer to compare.
type testCase struct {
	name    string
	lengths []int // nil for all of them, one by one, and then ragged
	run     func(b *bench) kernels.Buffer
}

// batches lists the packings that a case is run with. In short mode, meant
// for the race detector, sequences end at 65 tokens.
func (c testCase) batches() [][]int {
	list := [][]int{c.mixed()}
	if c.lengths != nil {
		return list
	}
	for _, n := range lengths {
		if n <= 65 || !testing.Short() {
			list = append(list, []int{n})
		}
	}
	return list
}

// mixed is the batch of several sequences that the case is run with.
func (c testCase) mixed() []int {
	lens := ragged
	if c.lengths != nil {
		lens = c.lengths
	}
	if testing.Short() {
		lens = slices.DeleteFunc(slices.Clone(lens), func(n int) bool { return n > 65 })
	}
	return lens
}

// result runs the case once and returns the rows of its output buffer.
// Sequence i of the batch carries the tag tags[i], from which its ids and its
// inputs are made.
func (c testCase) result(t *testing.T, backend kernels.Backend, lens, tags []int, slack int) (values []float32, cols int) {
	t.Helper()
	batch := packed(lens, tags)
	s, err := backend.NewStream(kernels.Limits{Tokens: len(batch.IDs) + slack, Sequences: len(lens) + slack})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	b := &bench{t: t, backend: backend, Stream: s, batch: batch, seed: 1}
	draws := uint64(0)
	b.input = func(cols int) []float32 {
		draws++
		var rows []float32
		for i, n := range lens {
			rows = append(rows, normal(draws<<32|uint64(tags[i]), n*cols)...)
		}
		return rows
	}
	s.Begin(batch)
	out := c.run(b)
	values = make([]float32, kernels.Rows(batch, out)*out.Cols())
	s.Read(values, out)
	if err := s.Wait(); err != nil {
		t.Fatal(err)
	}
	return values, out.Cols()
}

func (c testCase) compare(t *testing.T, backend kernels.Backend) {
	for _, lens := range c.batches() {
		tags := count(len(lens))
		want, cols := c.result(t, ref.New(), lens, tags, 0)
		base, _ := c.result(t, ref.NewFloat32(), lens, tags, 0)
		got, _ := c.result(t, backend, lens, tags, 0)
		compareRows(t, fmt.Sprint("lengths ", lens), got, base, want, cols)
	}
}

// compareRows bounds the error of the whole result and of its worst row by
// those of the baseline.
func compareRows(t *testing.T, what string, got, base, want []float32, cols int) {
	t.Helper()
	worst, worstBase, at := 0.0, 0.0, 0
	for r := 0; r < len(want); r += cols {
		e := relative(got[r:r+cols], want[r:r+cols])
		if !(e <= worst) {
			worst, at = e, r/cols
		}
		worstBase = max(worstBase, relative(base[r:r+cols], want[r:r+cols]))
	}
	if bound := allowance*worstBase + floorFloat32; !(worst <= bound) {
		t.Errorf("%s: row %d errs by %.3g (relative L2), the bound is %.3g", what, at, worst, bound)
	}
	all, bound := relative(got, want), allowance*relative(base, want)+floorFloat32
	if !(all <= bound) {
		t.Errorf("%s: errs by %.3g (relative L2), the bound is %.3g", what, all, bound)
	}
}

// relative is |a−b| / |b| in the L2 norm.
func relative(a, b []float32) float64 {
	diff, norm := 0.0, 0.0
	for i := range b {
		d := float64(a[i]) - float64(b[i])
		diff += d * d
		norm += float64(b[i]) * float64(b[i])
	}
	if diff == 0 {
		return 0
	}
	return math.Sqrt(diff / norm)
}

// repeat runs the case again on the same backend, with a stream of other
// limits: every bit has to come back.
func (c testCase) repeat(t *testing.T, backend kernels.Backend) {
	lens := c.mixed()
	tags := count(len(lens))
	first, _ := c.result(t, backend, lens, tags, 0)
	for _, slack := range []int{0, 0, 77} {
		again, _ := c.result(t, backend, lens, tags, slack)
		if i := differs(first, again); i >= 0 {
			t.Fatalf("%d tokens of slack: value %d is %v in one run and %v in another", slack, i, first[i], again[i])
		}
	}
}

// alone runs each sequence of the ragged batch by itself, and the batch in
// reverse order: each sequence's rows have to be the same bits.
func (c testCase) alone(t *testing.T, backend kernels.Backend) {
	lens := c.mixed()
	tags := count(len(lens))
	split := func(values []float32, cols int, order []int) map[int][]float32 {
		parts := map[int][]float32{}
		perSequence := len(values) == len(lens)*cols && len(values) != total(lens)*cols
		for _, i := range order {
			n := lens[i] * cols
			if perSequence {
				n = cols
			}
			parts[i], values = values[:n], values[n:]
		}
		return parts
	}
	values, cols := c.result(t, backend, lens, tags, 0)
	together := split(values, cols, tags)

	reversed := make([]int, len(lens))
	reversedLens := make([]int, len(lens))
	for i := range lens {
		reversed[i] = len(lens) - 1 - i
		reversedLens[i] = lens[reversed[i]]
	}
	values, _ = c.result(t, backend, reversedLens, reversed, 0)
	backwards := split(values, cols, reversed)

	for i, n := range lens {
		single, _ := c.result(t, backend, []int{n}, []int{i}, 0)
		if at := differs(together[i], single); at >= 0 {
			t.Errorf("sequence %d of %d tokens: value %d is %v in the batch and %v alone", i, n, at, together[i][at], single[at])
		}
		if at := differs(together[i], backwards[i]); at >= 0 {
			t.Errorf("sequence %d of %d tokens: value %d depends on the order of the batch", i, n, at)
		}
	}
}

// differs is the first index at which two results are not the same bits, or
// −1.
func differs(a, b []float32) int {
	for i := range a {
		if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
			return i
		}
	}
	return -1
}

// vocabulary is the number of rows of the tables that cases look up in; the
// last id stands for the mask.
const vocabulary = 37

// packed makes a batch of sequences of those lengths with ids drawn from
// their tags. About one token in nine is a mask.
func packed(lens, tags []int) kernels.Batch {
	var b kernels.Batch
	for i, n := range lens {
		rng := rand.New(rand.NewPCG(uint64(tags[i]), 99))
		ids := make([]int32, n)
		for k := range ids {
			ids[k] = int32(rng.IntN(vocabulary - 1))
			if k > 0 && rng.IntN(9) == 0 {
				ids[k] = vocabulary - 1
			}
		}
		b.Append(ids)
	}
	return b
}

// normal draws n standard normal values.
func normal(seed uint64, n int) []float32 {
	rng := rand.New(rand.NewPCG(seed, 7))
	values := make([]float32, n)
	for i := range values {
		values[i] = float32(rng.NormFloat64())
	}
	return values
}

func count(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}

func total(lens []int) int {
	sum := 0
	for _, n := range lens {
		sum += n
	}
	return sum
}
