package main

import (
	"fmt"
	"math"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// constant returns a vector with v in every lane: a register if hold has loaded v, and otherwise an address.
func (g *generator) constant(v float32) Op {
	if r, ok := g.held[math.Float32bits(v)]; ok {
		return r
	}
	return g.table(fmt.Sprintf("x%08x", math.Float32bits(v)), 16, func(int) uint32 { return math.Float32bits(v) })
}

// hold loads constants into registers for the rest of the function. Otherwise an AVX-512 loop would read the constants
// from memory, which is slow if the 64 bytes of a constant cross a cache line: Go aligns the table of a constant to 32
// bytes only. For AVX2 hold does nothing: too few registers are free, and the 32 bytes that AVX2 reads cross no cache
// line.
func (i isa) hold(g *generator, constants ...float32) {
	if i.lanes < 16 {
		return
	}
	for _, v := range constants {
		bits := math.Float32bits(v)
		if _, ok := g.held[bits]; !ok {
			g.held[bits] = i.get(g, v)
		}
	}
}

// table returns the address of n 32-bit values. Each table is written once per file.
func (g *generator) table(name string, n int, at func(int) uint32) Mem {
	if m, ok := g.tables[name]; ok {
		return m
	}
	m := g.StaticGlobal(name)
	g.DataAttributes(attr.RODATA | attr.NOPTR)
	for i := range n {
		g.AddDatum(4*i, U32(at(i)))
	}
	if g.tables == nil {
		g.tables = map[string]Mem{}
	}
	g.tables[name] = m
	return m
}

// mask selects lanes of a vector. A nil mask selects all lanes.
type mask struct {
	k reg.OpmaskVirtual // for AVX-512
	v reg.VecVirtual    // for AVX2: all bits are set in each selected lane
}

// first returns the mask of the first n lanes.
func (i isa) first(g *generator, n reg.GPVirtual) *mask {
	if i.lanes == 16 {
		ones, k := g.GP32(), g.K()
		g.MOVL(U32(math.MaxUint32), ones)
		g.BZHIL(n.As32(), ones, ones)
		g.KMOVW(ones, k)
		return &mask{k: k}
	}
	window := g.table("lanes", 16, func(lane int) uint32 {
		if lane < 8 {
			return math.MaxUint32
		}
		return 0
	})
	from, back, v := g.GP64(), g.GP64(), g.YMM()
	g.LEAQ(window.Offset(32), from)
	g.MOVQ(n, back)
	g.NEGQ(back)
	g.VMOVUPS(Mem{Base: from, Index: back, Scale: 4}, v)
	return &mask{v: v}
}

// load reads the lanes that the mask selects. The other lanes become zero, and their memory is not accessed.
func (i isa) load(g *generator, from Mem, m *mask) reg.VecVirtual {
	v := i.register(g)
	switch {
	case m == nil:
		g.VMOVUPS(from, v)
	case i.lanes == 16:
		g.VMOVUPS_Z(from, m.k, v)
	default:
		g.VMASKMOVPS(from, m.v, v)
	}
	return v
}

// store writes the lanes that the mask selects.
func (i isa) store(g *generator, v reg.VecVirtual, m *mask, to Mem) {
	switch {
	case m == nil:
		g.VMOVUPS(v, to)
	case i.lanes == 16:
		g.VMOVUPS(v, m.k, to)
	default:
		g.VMASKMOVPS(v, m.v, to)
	}
}

// keep zeroes the lanes that the mask does not select.
func (i isa) keep(g *generator, v reg.VecVirtual, m *mask) {
	switch {
	case m == nil:
	case i.lanes == 16:
		g.VMOVAPS_Z(v, m.k, v)
	default:
		g.VANDPS(m.v, v, v)
	}
}

// broadcast loads a float32 argument into every lane.
func (i isa) broadcast(g *generator, param string) reg.VecVirtual {
	v := i.register(g)
	g.VBROADCASTSS(g.argument(param), v)
	return v
}

// eachVector generates body twice: in a loop over the whole vectors of n values, with a nil mask, and for the remaining
// values, with a mask of their lanes. The pointers advance after each vector in the loop.
func (i isa) eachVector(g *generator, label string, n reg.GPVirtual, pointers []reg.GPVirtual, body func(*mask)) {
	g.SUBQ(Imm(uint64(i.lanes)), n)
	g.JL(LabelRef(label + "Rest"))
	g.Label(label)
	body(nil)
	for _, p := range pointers {
		g.ADDQ(Imm(uint64(i.bytes())), p)
	}
	g.SUBQ(Imm(uint64(i.lanes)), n)
	g.JGE(LabelRef(label))
	g.Label(label + "Rest")
	g.ADDQ(Imm(uint64(i.lanes)), n)
	g.JZ(LabelRef(label + "Done"))
	body(i.first(g, n))
	g.Label(label + "Done")
}

// fold combines the two halves of a vector lane by lane, and again the halves of the result, until 128 bits are left.
func (i isa) fold(g *generator, v reg.VecVirtual, combine func(a, b, to Op)) reg.VecVirtual {
	if i.lanes == 16 {
		upper := g.YMM()
		g.VEXTRACTF64X4(Imm(1), v, upper)
		low := g.YMM()
		combine(upper, v.AsY(), low)
		v = low
	}
	upper, low := g.XMM(), g.XMM()
	if i.lanes == 16 {
		g.VEXTRACTF32X4(Imm(1), v.AsY(), upper) // VEXTRACTF128 knows only 16 of the 32 registers
	} else {
		g.VEXTRACTF128(Imm(1), v.AsY(), upper)
	}
	combine(upper, v.AsX(), low)
	return low
}

// foldFloats combines all float32 lanes into the lowest lane.
func (i isa) foldFloats(g *generator, v reg.VecVirtual, combine func(a, b, to Op)) reg.VecVirtual {
	low := i.fold(g, v, combine)
	for _, order := range []uint64{0b01_00_11_10, 0b10_11_00_01} {
		other := g.XMM()
		g.VPERMILPS(Imm(order), low, other)
		combine(other, low, low)
	}
	return low
}

// foldDoubles adds all float64 lanes into the lowest lane.
func (i isa) foldDoubles(g *generator, v reg.VecVirtual) reg.VecVirtual {
	low := i.fold(g, v, func(a, b, to Op) { g.VADDPD(a, b, to) })
	other := g.XMM()
	g.VPERMILPD(Imm(1), low, other)
	g.VADDPD(other, low, low)
	return low
}
