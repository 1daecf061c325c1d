package kernelstest

import (
	"testing"

	"seqembed/kernels"
)

// Allocations checks that a backend allocates nothing on the host for a batch if a batch of the same size has run
// before. It runs random programs and a lookup of token embeddings, and starts a second batch before it waits for the
// first. The programs do not use the activations that lacks lists. Do not call it under the race detector, which itself
// allocates.
func Allocations(t *testing.T, backend kernels.Backend, operands kernels.DType, lacks ...kernels.Activation) {
	programs := []Case{{Name: "embed", Lengths: []int{33, 1, 65}, Tokens: true, Build: func(b *Bench) []kernels.Value {
		return []kernels.Value{b.Embed(kernels.Embed{Table: b.Table(40), Type: b.Vector(40, 1, 0), Scale: 1, Mask: Vocabulary - 1})}
	}}}
	for seed := range uint64(8) {
		programs = append(programs, randomProgram(seed, computed(lacks)))
	}
	batches := 20
	if testing.Short() {
		batches = 8
	}
	for _, c := range programs {
		run, free, err := c.prepare(t, backend, operands)
		if err != nil {
			t.Fatalf("%s: %v", c.Name, err)
		}
		// The Go runtime itself allocates now and then, for instance after a garbage collection. AllocsPerRun rounds
		// the average down, so these rare allocations do not count.
		if n := testing.AllocsPerRun(batches, run); n != 0 {
			t.Errorf("%s: %v allocations in two batches", c.Name, n)
		}
		free()
	}
}

// prepare compiles a case. The function run runs two batches: one of all sequences of the case, and one of the first
// two. The function free frees the memory of the program and its weights.
func (c Case) prepare(t *testing.T, backend kernels.Backend, operands kernels.DType) (run, free func(), err error) {
	lens, tags := c.Lengths, count(len(c.Lengths))
	batches := [2]kernels.Batch{c.batch(lens, tags), c.batch(lens[:2], tags)}
	b := &Bench{Program: new(kernels.Program), t: t, model: backend.NewModel(), operands: operands, lens: lens, tags: tags, seed: 1}
	var dst [2][][]float32
	for _, v := range c.Build(b) {
		b.Output(v)
		for i, batch := range batches {
			dst[i] = append(dst[i], make([]float32, b.Rows(v, batch)*b.Cols(v)))
		}
	}
	r, err := backend.Compile(b.Program, kernels.Limits{Tokens: len(batches[0].IDs), Sequences: len(lens)})
	if err != nil {
		b.model.Close()
		return nil, nil, err
	}
	run = func() {
		first := r.Start(batches[0], dst[0])
		second := r.Start(batches[1], dst[1])
		for _, err := range [2]error{first(), second()} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	return run, func() { r.Close(); b.model.Close() }, nil
}
