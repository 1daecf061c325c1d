package kernels

// Precision is the set of types in which a value is stored. It is derived from the operations that read the value.
// Norm, Pool, Output and the residual of a Linear read float32, because every block of a model adds to the residual
// stream, where rounding errors would accumulate. Matrix products and attention read the operand type.
type Precision uint8

const (
	// Float32 is float32 on every backend.
	Float32 Precision = 1 << iota
	// Operand is the type of the backend's matrix operands: float32, bfloat16 or float16.
	Operand
)

// Plan assigns memory to the values of a program.
type Plan struct {
	Slots   []Slot
	values  []int // index of each value's slot
	scratch []int // index of the slot of each operation's workspace, or -1 if it has none
}

// Slot is memory that holds one value, or the workspace of one operation, at a time. For each type in Precision it has
// a buffer of Cols columns, with one row per sequence if PerSequence is set and one row per token if not.
type Slot struct {
	Cols        int
	Precision   Precision // both types if each value is stored twice
	PerSequence bool
}

// Slot returns the index of the slot of v.
func (p Plan) Slot(v Value) int { return p.values[v] }

// Scratch returns the index of the slot that holds the workspace of operation i, or -1 if the operation has none.
func (p Plan) Scratch(i int) int { return p.scratch[i] }

// Needs describes a backend's memory requirements to the planner.
type Needs struct {
	// Uniform is set if the operand type is float32. Every slot is then Float32.
	Uniform bool
	// Scratch returns the columns and the type of the workspace that an operation needs while it runs, or 0 columns if
	// the operation needs no workspace. A nil Scratch means that no operation needs workspace.
	Scratch func(o Op) (cols int, as Precision)
}

// Precision returns the types in which v is read, or Float32 if no operation reads v.
func (p *Program) Precision(v Value) Precision {
	if p.values[v].reads == 0 {
		return Float32
	}
	return p.values[v].reads
}

// Plan assigns a slot to every value so that no two values that are live at the same time share a slot. A value is live
// until the last operation that reads it has run. There are two exceptions: the result of a Norm may overwrite its
// input, and the result of a Linear may overwrite its residual, unless the residual is also the input. Both are allowed
// only if no later operation reads the overwritten value and the types agree. Overwriting is safe because the only task
// that reads an element is the one that overwrites it afterwards. In all other cases an operation's result and inputs
// do not overlap.
//
// Plan assigns slots in the order of the operations; allocator.take chooses a slot.
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
		if over != None && p.values[over].lastUse == i && a.kept(p.Precision(over)) == a.kept(p.Precision(o.Out)) {
			a.plan.values[o.Out] = a.plan.values[over]
		} else {
			over = None
			a.plan.values[o.Out] = a.take(v.cols, a.kept(p.Precision(o.Out)), v.perSequence)
		}
		a.release(o, i, over)
		if v.lastUse == i { // no operation reads the result
			a.free = append(a.free, a.plan.values[o.Out])
		}
	}
	return a.plan
}

// allocator is the state of Program.Plan.
type allocator struct {
	program *Program
	needs   Needs
	plan    Plan
	free    []int // indices of the slots that hold no live value
}

// kept returns the types in which a backend stores a value. The parameter as contains the types in which operations
// read the value.
func (a *allocator) kept(as Precision) Precision {
	if a.needs.Uniform {
		return Float32
	}
	return as
}

// take returns a slot of at least cols columns. Of the free slots with the same types and the same kind of rows, it
// takes the smallest that is large enough. If all are too small, it enlarges the largest. If no free slot has these
// types and rows, it makes a new slot.
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

// closer reports whether a slot of a columns fits a value of cols columns better than a slot of b columns does.
func closer(a, b, cols int) bool {
	if (a >= cols) != (b >= cols) {
		return a >= cols
	}
	if a >= cols {
		return a < b
	}
	return a > b
}

// release frees slots after operation o, which has the index at. It frees the slots of inputs that no later operation
// reads, and the slot of the operation's workspace. It does not free the slot of the value over, because the result of
// o overwrites that value and needs the slot.
func (a *allocator) release(o Op, at int, over Value) {
	for i, v := range [...]Value{o.In, o.Add} {
		if v == None || v == over || i == 1 && v == o.In || a.program.values[v].lastUse != at {
			continue
		}
		a.free = append(a.free, a.plan.values[v])
	}
	if s := a.plan.scratch[at]; s >= 0 {
		a.free = append(a.free, s)
	}
}
