package kernels

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Profile adds up the run times of operations, separately for each name that Describe returns. The zero value is empty.
type Profile struct {
	entries map[string]*OpTime
}

// OpTime is one entry of a Profile.
type OpTime struct {
	Op    string // name from Describe, for example "linear 2304x768"
	Calls int
	Took  time.Duration // total over all calls
	FLOPs float64       // total over all calls; 0 except for products and attention; a multiply-add counts as two
}

// Add adds one call of the operation with the given name, as returned by Describe.
func (p *Profile) Add(name string, flops float64, took time.Duration) {
	e := p.entries[name]
	if e == nil {
		if p.entries == nil {
			p.entries = map[string]*OpTime{}
		}
		e = &OpTime{Op: name}
		p.entries[name] = e
	}
	e.Calls++
	e.Took += took
	e.FLOPs += flops
}

// Ops returns the entries, those with the longest total time first.
func (p *Profile) Ops() []OpTime {
	var list []OpTime
	for _, e := range p.entries {
		list = append(list, *e)
	}
	slices.SortFunc(list, func(a, b OpTime) int {
		return cmp.Or(cmp.Compare(b.Took, a.Took), cmp.Compare(a.Op, b.Op))
	})
	return list
}

// Describe returns the name of an operation for a Profile, and its FLOPs on a batch: perToken for each token, plus
// perPair for each ordered pair of tokens of one sequence (n² pairs for n tokens).
func (p *Program) Describe(o Op) (name string, perToken, perPair float64) {
	switch do := o.Do.(type) {
	case Linear:
		out, in := do.W.Dims()
		name = fmt.Sprintf("linear %dx%d", out, in)
		if do.Then != Identity {
			name += " + " + do.Then.String()
		}
		if o.Add != None {
			name += " + add"
		}
		return name, 2 * float64(out) * float64(in), 0
	case Attention:
		name = do.name()
		if do.Rotary != nil {
			name = "rotary + " + name
		}
		return name, 0, 4 * float64(p.Cols(o.Out))
	}
	return o.Do.name(), 0, 0
}

// FLOPs returns the number of floating-point operations on a batch, from the numbers perToken and perPair that Describe
// returns.
func FLOPs(b Batch, perToken, perPair float64) float64 {
	flops := perToken * float64(len(b.IDs))
	for s := range b.Sequences() {
		flops += perPair * float64(b.Len(s)) * float64(b.Len(s))
	}
	return flops
}
