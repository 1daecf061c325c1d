package kernels

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Profiler is a stream that can say where its time goes.
type Profiler interface {
	// Profile makes p the profile that the operations enqueued from here on
	// are added to, once they have been waited for; nil ends it. Measuring costs some
	// time itself.
	Profile(p *Profile)
}

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

// Describe names an operation for a Profile and counts its arithmetic on a batch.
func Describe(o Op, b Batch) (name string, flops float64) {
	switch o := o.(type) {
	case Embed:
		return "embed", 0
	case Linear:
		out, in := o.W.Dims()
		name = fmt.Sprintf("linear %dx%d", out, in)
		if o.Then != Identity {
			name += " + " + o.Then.String()
		}
		if o.Add != nil {
			name += " + add"
		}
		return name, 2 * float64(len(b.IDs)) * float64(out) * float64(in)
	case Norm:
		return "norm", 0
	case Attention:
		for s := range b.Sequences() {
			flops += 4 * float64(b.Len(s)) * float64(b.Len(s)) * float64(o.Out.Cols())
		}
		if o.Rotary != nil {
			return "rotary + attention", flops
		}
		return "attention", flops
	case Pool:
		return "pool", 0
	}
	return fmt.Sprintf("%T", o), 0
}
