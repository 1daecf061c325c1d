package kernels

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Profile sums the time of operations on a device by operation and shape.
// The zero value is empty.
type Profile struct {
	entries map[string]*OpTime
}

// OpTime is one entry of a Profile.
type OpTime struct {
	Op    string // the operation and its shape, for example "linear 2304x768"
	Calls int
	Took  time.Duration // of all calls
	FLOPs float64       // of all calls: products and attention, two for a multiply-add
}

// Add counts one run of an operation under a name, as Describe gives it.
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

// Ops lists the entries, the longest first.
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

// Describe names an operation for a Profile. Its arithmetic on a batch is a number of FLOPs for each token and one for
// each token and token of its sequence.
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

// FLOPs is the arithmetic on a batch of what Describe gives.
func FLOPs(b Batch, perToken, perPair float64) float64 {
	flops := perToken * float64(len(b.IDs))
	for s := range b.Sequences() {
		flops += perPair * float64(b.Len(s)) * float64(b.Len(s))
	}
	return flops
}
