package kernels

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// shapes is a weight that has dimensions but no values.
type shapes struct {
	role       Role
	rows, cols int
}

func (s shapes) Role() Role             { return s.role }
func (s shapes) Dims() (rows, cols int) { return s.rows, s.cols }

// randomly builds a random program. Some of its values have long lifetimes and some short ones. They are read as
// float32, in the operand type, as both, or never.
func randomly(seed uint64) *Program {
	rng := rand.New(rand.NewPCG(seed, 1))
	vector := func(n int) Weight { return shapes{Vector, 1, n} }
	p := new(Program)
	values := []Value{p.Embed(Embed{Table: shapes{Lookup, 9, 48}, Scale: 1}), p.Embed(Embed{Table: shapes{Lookup, 7, 24}, Scale: 1})}
	for range 5 + rng.IntN(30) {
		x := values[rng.IntN(len(values))]
		cols := p.Cols(x)
		if p.PerSequence(x) {
			p.Output(x)
			continue
		}
		switch rng.IntN(7) {
		case 0, 1:
			values = append(values, p.Norm(x, Norm{Gain: vector(cols), Bias: vector(cols), Eps: 1}))
		case 2:
			if cols%3 == 0 {
				values = append(values, p.Attention(x, Attention{Heads: 1, Scale: 1}))
			}
		case 3:
			values = append(values, p.Linear(x, Linear{W: shapes{Projection, 2 * (8 + rng.IntN(40)), cols}, Then: GEGLU}, None))
		case 4, 5:
			add, out := None, 8+rng.IntN(90)
			if y := values[rng.IntN(len(values))]; rng.IntN(2) == 0 && !p.PerSequence(y) {
				add, out = y, p.Cols(y)
			}
			values = append(values, p.Linear(x, Linear{W: shapes{Projection, out, cols}}, add))
		case 6:
			values = append(values, p.Pool(x, Range{}))
		}
	}
	p.Output(values[len(values)-1])
	return p
}

// TestPlan checks that no value is overwritten before the last operation that reads it, and that every value fits its
// slot.
func TestPlan(t *testing.T) {
	scratch := func(o Op) (int, Precision) {
		if l, ok := o.Do.(Linear); ok && l.Then.Gates() {
			rows, _ := l.W.Dims()
			return rows, Operand
		}
		return 0, 0
	}
	shared, inPlace := 0, 0
	for seed := range uint64(500) {
		for _, needs := range []Needs{{}, {Uniform: true}, {Scratch: scratch}, {Uniform: true, Scratch: scratch}} {
			p := randomly(seed)
			if err := p.Err(); err != nil {
				t.Fatal(err)
			}
			plan := p.Plan(needs)
			holds := map[int]Value{} // the value in each slot
			for i := range plan.Slots {
				holds[i] = None
			}
			for i, o := range p.ops {
				where := fmt.Sprintf("program %d, %+v: operation %d, %s", seed, needs.Uniform, i, o.Do.name())
				for _, v := range []Value{o.In, o.Add} {
					if v != None && holds[plan.Slot(v)] != v {
						t.Fatalf("%s reads value %d, but its slot holds value %d", where, v, holds[plan.Slot(v)])
					}
				}
				free := func(slot int, what string, over Value) {
					for v := range p.values {
						x := p.values[v]
						if holds[slot] == Value(v) && x.definedAt < i && x.lastUse >= i && Value(v) != over {
							t.Fatalf("%s: %s overwrites slot %d while value %d is live (last read by operation %d)", where, what, slot, v, x.lastUse)
						}
					}
				}
				if s := plan.Scratch(i); s >= 0 {
					free(s, "the workspace", None)
					if cols, _ := scratch(o); plan.Slots[s].Cols < cols || o.Out != None && s == plan.Slot(o.Out) {
						t.Fatalf("%s: the workspace does not fit slot %d, or shares it with the result", where, s)
					}
					holds[s] = None
				}
				if o.Out == None {
					continue
				}
				over := None
				switch o.Do.(type) {
				case Norm:
					over = o.In
				case Linear:
					if o.Add != o.In {
						over = o.Add
					}
				}
				if over != None && (p.values[over].lastUse > i || plan.Slot(over) != plan.Slot(o.Out)) {
					over = None
				}
				s := plan.Slots[plan.Slot(o.Out)]
				free(plan.Slot(o.Out), "the result", over)
				want := p.Precision(o.Out)
				if needs.Uniform {
					want = Float32
				}
				if s.Cols < p.Cols(o.Out) || s.Precision != want || s.PerSequence != p.PerSequence(o.Out) {
					t.Fatalf("%s: a value of %d columns and precision %d is in slot %+v", where, p.Cols(o.Out), want, s)
				}
				if over != None {
					inPlace++
				} else if holds[plan.Slot(o.Out)] != None {
					shared++
				}
				holds[plan.Slot(o.Out)] = o.Out
			}
		}
	}
	if shared == 0 || inPlace == 0 {
		t.Errorf("%d values reused a slot and %d were computed in place: nothing is tested", shared, inPlace)
	}
}

// TestCheckRunAllocatesNothing checks that CheckRun allocates nothing for a valid batch.
func TestCheckRunAllocatesNothing(t *testing.T) {
	p := new(Program)
	x := p.Embed(Embed{Table: shapes{Lookup, 9, 8}, Scale: 1})
	p.Output(p.Pool(x, Range{Skip: 1}))
	b := Batch{IDs: []int32{1, 2, 3, 8, 0}, CuSeqlens: []int32{0, 3, 5}}
	dst := [][]float32{make([]float32, 16)}
	n := testing.AllocsPerRun(100, func() {
		if err := p.CheckRun(Limits{Tokens: 5, Sequences: 2}, b, dst); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}
