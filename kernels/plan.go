package kernels

// Precision says in which types a value is kept. It follows from its readers: a Norm, a Pool, an Output and the
// residual of a Linear read float32, because sums that many blocks add to need it; products and attention read the
// operands' type.
type Precision uint8

const (
	// Float32 is kept on every backend.
	Float32 Precision = 1 << iota
	// Operand is the type of the backend's matrix operands: float32 on a CPU, bfloat16 or float16 on a GPU.
	Operand
)

// Plan is where the values of a program lie.
type Plan struct {
	Slots   []Slot
	values  []int // the slot of each value
	scratch []int // the slot of each operation's scratch, or -1
}

// Slot is memory that several values take in turn: rows of Cols columns in each type of Precision.
type Slot struct {
	Cols        int
	Precision   Precision // both where there is a value of both, which is kept twice
	PerSequence bool
}

// Slot is the slot of a value.
func (p Plan) Slot(v Value) int { return p.values[v] }

// Scratch is the slot of the scratch of operation i.
func (p Plan) Scratch(i int) int { return p.scratch[i] }

// Needs is what a backend tells a plan about itself.
type Needs struct {
	// Uniform says that float32 and the operands' type are one: every slot is of Float32.
	Uniform bool
	// Scratch, unless it is nil, gives the columns and the precision of memory that an operation needs while it runs;
	// no columns for none.
	Scratch func(o Op) (cols int, as Precision)
}

// Precision is the types in which a value is read, Float32 alone where nothing reads it.
func (p *Program) Precision(v Value) Precision {
	if p.values[v].reads == 0 {
		return Float32
	}
	return p.values[v].reads
}

// Plan gives every value a slot, so that no two values share one while both are needed. The result of a Norm may lie
// over its input, and that of a Linear over its residual, where nothing reads these afterwards and the types agree:
// every element is read before it is written, and by the same task. In all other cases results and inputs lie apart.
//
// Values take slots in the order of the operations: the free one of the same types that is closest in size.
func (p *Program) Plan(needs Needs) Plan {
	a := allocator{program: p, needs: needs}
	a.plan.values = make([]int, len(p.values))
	a.plan.scratch = make([]int, len(p.ops))
	for i, o := range p.ops {
		a.plan.scratch[i] = -1
		if needs.Scratch != nil {
			if cols, as := needs.Scratch(o); cols > 0 {
				a.plan.scratch[i] = a.take(cols, a.kept(as), false)
			}
		}
		if o.Out == None {
			a.release(o, i, None)
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
		v := &p.values[o.Out]
		if over != None && p.values[over].dies == i && a.kept(p.Precision(over)) == a.kept(p.Precision(o.Out)) {
			a.plan.values[o.Out] = a.plan.values[over]
		} else {
			over = None
			a.plan.values[o.Out] = a.take(v.cols, a.kept(p.Precision(o.Out)), v.perSequence)
		}
		a.release(o, i, over)
		if v.dies == i { // nothing reads it
			a.free = append(a.free, a.plan.values[o.Out])
		}
	}
	return a.plan
}

type allocator struct {
	program *Program
	needs   Needs
	plan    Plan
	free    []int
}

func (a *allocator) kept(as Precision) Precision {
	if a.needs.Uniform {
		return Float32
	}
	return as
}

// take gives a slot of at least that many columns: the smallest free one that is large enough, or else the largest,
// which grows, or a new one.
func (a *allocator) take(cols int, as Precision, perSequence bool) int {
	best := -1
	for f, s := range a.free {
		slot := a.plan.Slots[s]
		if slot.Precision != as || slot.PerSequence != perSequence {
			continue
		}
		if best < 0 || closer(slot.Cols, a.plan.Slots[a.free[best]].Cols, cols) {
			best = f
		}
	}
	if best < 0 {
		a.plan.Slots = append(a.plan.Slots, Slot{cols, as, perSequence})
		return len(a.plan.Slots) - 1
	}
	s := a.free[best]
	a.free = append(a.free[:best], a.free[best+1:]...)
	a.plan.Slots[s].Cols = max(a.plan.Slots[s].Cols, cols)
	return s
}

// closer reports whether a slot of a columns suits better than one of b.
func closer(a, b, cols int) bool {
	if (a >= cols) != (b >= cols) {
		return a >= cols
	}
	if a >= cols {
		return a < b
	}
	return a > b
}

// release frees the slots of what an operation is the last to read, but for that of over, which its result has taken.
func (a *allocator) release(o Op, at int, over Value) {
	for i, v := range [...]Value{o.In, o.Add} {
		if v == None || v == over || i == 1 && v == o.In || a.program.values[v].dies != at {
			continue
		}
		a.free = append(a.free, a.plan.values[v])
	}
	if s := a.plan.scratch[at]; s >= 0 {
		a.free = append(a.free, s)
	}
}
