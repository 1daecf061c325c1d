// Package kernelstest is the conformance suite for backends. Every backend must pass it with every operand type that
// the backend has, and the CPU backend with every instruction set. The suite compares each operation with the
// reference, over batches of unequal lengths and over sizes that are no multiples of tiles. It runs random programs. It
// checks that results repeat bit for bit and do not depend on the other sequences in the batch.
//
// The suite's tolerances are defined here. A backend's error may be at most twice the error of plain loops in the same
// precision, plus four roundings for cases in which the loops happen to be almost exact. Both errors are measured
// against the float64 reference.
package kernelstest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"seqembed/kernels"
	"seqembed/kernels/ref"
)

// allowance is the permitted ratio of a backend's error to the error of the baseline, plain loops in the same
// precision.
const allowance = 2

// floor is a relative error that is always permitted. It is four roundings to float32, as many as the shortest
// operations have, for example to scale, rotate, add and round.
const floor = 4 * 0x1p-24

// ragged lists the sequence lengths of a batch: lengths around the sizes of tiles and vectors, unsorted.
var ragged = []int{65, 1, 129, 31, 257, 2, 64, 33, 97, 32, 1, 127, 63, 128}

// Run runs the whole suite on a backend with the given operand type. It calls open once for each test; open must return
// a fresh backend. Results of the reference that are already in known are not computed again. lacks lists the
// activations that the backend does not compute: Compile must refuse them, and no other test uses them.
func Run(t *testing.T, operands kernels.DType, known *Known, open func() kernels.Backend, lacks ...kernels.Activation) {
	run(t, cases(computed(lacks), testing.Short()), testing.Short(), operands, known, open, lacks)
	refuses := func(t *testing.T, b kernels.Backend) { unsupported(t, b, append(lacks, unknown)) }
	for name, test := range map[string]func(*testing.T, kernels.Backend){
		"mistakes": mistakes, "unsupported": refuses, "weights": weights, "starts": starts} {
		t.Run(name, func(t *testing.T) {
			b := open()
			defer b.Close()
			test(t, b)
		})
	}
}

// RunProducts runs, of the cases of Run, only those for a Linear and the random programs. It is for a backend that has
// passed Run with another implementation of products.
func RunProducts(t *testing.T, operands kernels.DType, known *Known, open func() kernels.Backend, lacks ...kernels.Activation) {
	run(t, products(computed(lacks), testing.Short()), testing.Short(), operands, known, open, lacks)
}

// RunShortProducts does the same as RunProducts, but always with the smaller sizes that go test -short selects. It is
// for an implementation of products that another test compares, bit by bit, with an implementation that passes the
// whole suite.
func RunShortProducts(t *testing.T, operands kernels.DType, known *Known, open func() kernels.Backend, lacks ...kernels.Activation) {
	run(t, products(computed(lacks), true), true, operands, known, open, lacks)
}

// products returns the cases for a Linear.
func products(activations []kernels.Activation, short bool) []Case {
	return slices.DeleteFunc(cases(activations, short), func(c Case) bool { return !strings.HasPrefix(c.Name, "linear") })
}

// computed returns all activations except those in lacks.
func computed(lacks []kernels.Activation) []kernels.Activation {
	all := slices.Clone(kernels.Activations[:])
	return slices.DeleteFunc(all, func(a kernels.Activation) bool { return slices.Contains(lacks, a) })
}

func run(t *testing.T, list []Case, short bool, operands kernels.DType, known *Known, open func() kernels.Backend, lacks []kernels.Activation) {
	programs := randomPrograms
	if short {
		programs = shortPrograms
	}
	for seed := range uint64(programs) {
		list = append(list, randomProgram(seed, computed(lacks)))
	}
	for _, c := range list {
		c.short = short
		t.Run(c.Name, func(t *testing.T) {
			b := open()
			defer b.Close()
			together := c.compare(t, b, operands, known)
			c.repeat(t, b, operands, together)
			c.alone(t, b, operands, together)
		})
	}
}

// Case is a test case. Build builds a program and returns the values to compare.
type Case struct {
	Name    string
	Lengths []int // lengths of the sequences; nil means ragged and, unless short, also a batch of one long sequence
	Tokens  bool  // whether ids are random tokens below Vocabulary; if not, they are the row numbers of an Input
	Build   func(b *Bench) []kernels.Value

	short bool // whether sequences have at most 65 tokens and fewer runs are compared, as in short mode
}

// batches returns the lengths of the sequences in each batch that is compared with the reference.
func (c Case) batches() [][]int {
	list := [][]int{c.mixed()}
	if c.Lengths == nil && !c.short {
		list = append(list, []int{785}) // a CPU takes 512 scores and 384 values at a time: several blocks
	}
	return list
}

// mixed returns the lengths of the sequences in the case's batch of several sequences.
func (c Case) mixed() []int {
	lens := ragged
	if c.Lengths != nil {
		lens = c.Lengths
	}
	if c.short {
		lens = slices.DeleteFunc(slices.Clone(lens), func(n int) bool { return n > 65 })
	}
	return lens
}

// Result is one output of a run. It is compared with the same output of another run.
type Result struct {
	Values      []float32
	Cols        int
	PerSequence bool
}

// Run builds the program of the case and runs it once on sequences of the lengths lens. The ids and inputs of sequence
// i are generated from tags[i]. If tags is nil, the tags are 0, 1, 2, …. The limits exceed the batch by slack tokens
// and by slack sequences.
func (c Case) Run(t testing.TB, backend kernels.Backend, operands kernels.DType, lens, tags []int, slack int) ([]Result, error) {
	t.Helper()
	if tags == nil {
		tags = count(len(lens))
	}
	batch := c.batch(lens, tags)
	b := &Bench{Program: new(kernels.Program), t: t, model: backend.NewModel(), operands: operands, lens: lens, tags: tags, seed: 1}
	defer b.model.Close()
	var results []Result
	var dst [][]float32
	for _, v := range c.Build(b) {
		b.Output(v)
		if b.Err() != nil {
			break
		}
		r := Result{make([]float32, b.Rows(v, batch)*b.Cols(v)), b.Cols(v), b.PerSequence(v)}
		results, dst = append(results, r), append(dst, r.Values)
	}
	r, err := backend.Compile(b.Program, kernels.Limits{Tokens: len(batch.IDs) + slack, Sequences: len(lens) + slack})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return results, r.Start(batch, dst)()
}

func (c Case) mustRun(t testing.TB, backend kernels.Backend, operands kernels.DType, lens, tags []int, slack int) []Result {
	t.Helper()
	results, err := c.Run(t, backend, operands, lens, tags, slack)
	if err != nil {
		t.Fatalf("%s: %v", c.Name, err)
	}
	return results
}

// Known caches the results of the reference and the baseline, which take most of the time, so that several backends can
// share them. It is safe for concurrent use. The zero value is ready to use. All the backends must lack the same
// activations, because the random programs depend on them.
type Known struct {
	mu      sync.Mutex
	results map[string]func() (want, base []Result)
}

func (k *Known) of(t testing.TB, c Case, operands kernels.DType, lens []int) (want, base []Result) {
	key := fmt.Sprint(c.Name, operands, lens)
	k.mu.Lock()
	if k.results == nil {
		k.results = map[string]func() (want, base []Result){}
	}
	if k.results[key] == nil {
		k.results[key] = sync.OnceValues(func() (want, base []Result) {
			return c.mustRun(t, ref.New(), operands, lens, nil, 0), c.mustRun(t, ref.NewBaseline(operands), operands, lens, nil, 0)
		})
	}
	results := k.results[key]
	k.mu.Unlock()
	return results()
}

// compare compares the backend's results for all batches with those of the reference. It returns the backend's results
// for c.mixed(), the batch of several sequences.
func (c Case) compare(t testing.TB, backend kernels.Backend, operands kernels.DType, known *Known) (mixed []Result) {
	t.Helper()
	for _, lens := range c.batches() {
		want, base := known.of(t, c, operands, lens)
		got := c.mustRun(t, backend, operands, lens, nil, 0)
		if mixed == nil {
			mixed = got
		}
		for i, w := range want {
			what := fmt.Sprintf("%s, lengths %v, result %d", operands, lens, i)
			compareRows(t, what, got[i].Values, base[i].Values, w.Values, w.Cols)
		}
	}
	return mixed
}

// compareRows checks that the relative errors of the whole result and of its worst row are within the bounds that
// follow from the errors of the baseline.
func compareRows(t testing.TB, what string, got, base, want []float32, cols int) {
	t.Helper()
	worst, worstBase, at := 0.0, 0.0, 0
	for r := 0; r < len(want); r += cols {
		e := relative(got[r:r+cols], want[r:r+cols])
		if !(e <= worst) {
			worst, at = e, r/cols
		}
		worstBase = max(worstBase, relative(base[r:r+cols], want[r:r+cols]))
	}
	if bound := allowance*worstBase + floor; !(worst <= bound) {
		t.Errorf("%s: the relative L2 error of row %d is %.3g, above the bound %.3g", what, at, worst, bound)
	}
	all, bound := relative(got, want), allowance*relative(base, want)+floor
	if !(all <= bound) {
		t.Errorf("%s: the relative L2 error is %.3g, above the bound %.3g", what, all, bound)
	}
}

// relative returns |a−b| / |b| in the L2 norm.
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

// repeat runs the batch of several sequences again: twice with the same limits, and once with limits that are larger by
// 77 tokens and 77 sequences. In short mode it uses only the larger limits. Every bit of the results must be the same
// as in first.
func (c Case) repeat(t *testing.T, backend kernels.Backend, operands kernels.DType, first []Result) {
	slacks := []int{0, 0, 77}
	if c.short {
		slacks = []int{77}
	}
	for _, slack := range slacks {
		for k, again := range c.mustRun(t, backend, operands, c.mixed(), nil, slack) {
			if i := Differs(first[k].Values, again.Values); i >= 0 {
				t.Fatalf("%d tokens of slack: value %d is %v in one run and %v in another", slack, i, first[k].Values[i], again.Values[i])
			}
		}
	}
}

// alone runs the batch of several sequences in reverse order, and then each sequence by itself (only the first two in
// short mode). Each sequence's results must have the same bits as in together.
func (c Case) alone(t testing.TB, backend kernels.Backend, operands kernels.DType, together []Result) {
	t.Helper()
	lens := c.mixed()
	split := func(r Result, order []int) map[int][]float32 {
		parts := map[int][]float32{}
		for _, i := range order {
			n := lens[i] * r.Cols
			if r.PerSequence {
				n = r.Cols
			}
			parts[i], r.Values = r.Values[:n], r.Values[n:]
		}
		return parts
	}
	order := count(len(lens))
	reversed, reversedLens := make([]int, len(lens)), make([]int, len(lens))
	for i := range lens {
		reversed[i] = len(lens) - 1 - i
		reversedLens[i] = lens[reversed[i]]
	}
	backwards := c.mustRun(t, backend, operands, reversedLens, reversed, 0)
	for i, n := range lens {
		for k := range together {
			if at := Differs(split(together[k], order)[i], split(backwards[k], reversed)[i]); at >= 0 {
				t.Errorf("sequence %d of %d tokens: value %d depends on the order of the batch", i, n, at)
			}
		}
		if c.short && i > 1 {
			continue
		}
		single := c.mustRun(t, backend, operands, []int{n}, []int{i}, 0)
		for k := range single {
			one := split(together[k], order)[i]
			if at := Differs(one, single[k].Values); at >= 0 {
				t.Errorf("sequence %d of %d tokens: value %d is %v in the batch and %v alone", i, n, at, one[at], single[k].Values[at])
			}
		}
	}
}

// Differs returns the first index at which a and b differ in any bit, or −1.
func Differs(a, b []float32) int {
	for i := range a {
		if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
			return i
		}
	}
	return -1
}

// Vocabulary is the number of rows of the tables for token lookups. The last id is that of the mask token.
const Vocabulary = 37

// batch returns a batch of sequences with the given lengths. If c.Tokens is set, the ids are random, from a generator
// seeded with the tags, and about one in nine is the mask token. Otherwise the ids are the indices of the rows of an
// Input.
func (c Case) batch(lens, tags []int) kernels.Batch {
	var b kernels.Batch
	for i, n := range lens {
		rng := rand.New(rand.NewPCG(uint64(tags[i]), 99))
		ids := make([]int32, n)
		for k := range ids {
			ids[k] = int32(rng.IntN(Vocabulary - 1))
			if k > 0 && rng.IntN(9) == 0 {
				ids[k] = Vocabulary - 1
			}
			if !c.Tokens {
				ids[k] = int32(len(b.IDs) + k)
			}
		}
		b.Append(ids)
	}
	return b
}

// normal returns n standard normal values.
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
