package main

import (
	"fmt"
	"math"
	"strings"
)

const (
	lanes     = 4  // float32 values in a vector
	vecBytes  = 16 // bytes of a vector
	panelCols = 16 // width of a panel; must equal the constant in kernels/cpu
)

// vec is the number of a vector register, gp the name of a general register.
type (
	vec int
	gp  string
)

// q returns the name of the whole register in Go's syntax. The method as returns the register's name with an
// arrangement of lanes, such as S4.
func (v vec) q() string              { return fmt.Sprintf("F%d", v) }
func (v vec) as(shape string) string { return fmt.Sprintf("V%d.%s", v, shape) }

// freeGP are the registers that a function may use. The assembler, the runtime and the platform use the others.
var freeGP = strings.Fields("R0 R1 R2 R3 R4 R5 R6 R7 R8 R9 R10 R11 R12 R13 R14 R15 R16 R17 R19 R20 R21 R22 R23 R24 R25 R26")

// generator writes the assembly and the declarations of one file. Registers are assigned in order and never spill.
type generator struct {
	text, stubs strings.Builder
	tables      map[string]bool
	data        strings.Builder

	params map[string]string // operands of the current function's parameters and result
	gps    int               // general registers in use
	vecs   int               // vector registers in use
}

// op writes one instruction in Go's syntax.
func (g *generator) op(format string, args ...any) { fmt.Fprintf(&g.text, "\t"+format+"\n", args...) }

func (g *generator) label(name string) { fmt.Fprintf(&g.text, "\n%s:\n", name) }

// function begins a function that has no stack frame and calls no other function. The Go scheduler cannot preempt it,
// so loops that take long are written in Go. params are the names and types of the parameters, result the type of the
// result or empty.
func (g *generator) function(name, params, result, doc string) {
	g.params, g.gps, g.vecs = map[string]string{}, 0, 0
	offset := 0
	place := func(name, kind string) {
		size := 8
		if kind == "float32" {
			size = 4
		}
		offset = (offset + size - 1) &^ (size - 1)
		g.params[name] = fmt.Sprintf("%s+%d(FP)", name, offset)
		offset += size
	}
	for _, p := range strings.Split(params, ", ") {
		name, kind, _ := strings.Cut(p, " ")
		place(name, kind)
	}
	if result != "" {
		offset = (offset + 7) &^ 7
		place("ret", result)
	}
	signature := strings.TrimSpace(fmt.Sprintf("func %s(%s) %s", name, params, result))
	fmt.Fprintf(&g.stubs, "\n// %s\n//\n//go:noescape\n%s\n", doc, signature)
	fmt.Fprintf(&g.text, "\n// %s\nTEXT ·%s(SB), NOSPLIT, $0-%d\n", signature, name, offset)
}

// gp reserves a general register until the end of the function.
func (g *generator) gp() gp {
	g.gps++
	return gp(freeGP[g.gps-1])
}

// vec reserves a vector register until the end of the innermost scope.
func (g *generator) vec() vec {
	if g.vecs == 32 {
		panic("no vector register is free")
	}
	g.vecs++
	return vec(g.vecs - 1)
}

// scope begins a scope. The function end frees the vector registers that were reserved in the scope.
func (g *generator) scope() (end func()) {
	before := g.vecs
	return func() { g.vecs = before }
}

// param loads a pointer or integer argument.
func (g *generator) param(name string) gp {
	r := g.gp()
	g.op("MOVD %s, %s", g.params[name], r)
	return r
}

// strideParam loads an argument that counts float32 values and converts it to bytes.
func (g *generator) strideParam(name string) gp {
	r := g.param(name)
	g.op("LSL $2, %s", r)
	return r
}

// broadcast loads a float32 argument into every lane.
func (g *generator) broadcast(name string) vec {
	v := g.vec()
	g.op("FMOVS %s, %s", g.params[name], v.q())
	g.op("VDUP V%d.S[0], %s", v, v.as("S4"))
	return v
}

// table returns a register with the address of n 32-bit values. Each table is written once per file.
func (g *generator) table(name string, n int, at func(int) uint32) gp {
	if g.tables == nil {
		g.tables = map[string]bool{}
	}
	if !g.tables[name] {
		g.tables[name] = true
		for i := range n {
			fmt.Fprintf(&g.data, "DATA %s<>+%d(SB)/4, $0x%08x\n", name, 4*i, at(i))
		}
		fmt.Fprintf(&g.data, "GLOBL %s<>(SB), RODATA|NOPTR, $%d\n\n", name, 4*n)
	}
	r := g.gp()
	g.op("MOVD $%s<>(SB), %s", name, r)
	return r
}

// constants loads each value into all lanes of a register.
func (g *generator) constants(values ...float32) []vec {
	at := g.replicated(values)
	registers := make([]vec, len(values))
	for i := range values {
		registers[i] = g.vec()
		g.load(registers[i], at, i*vecBytes)
	}
	return registers
}

// replicated returns a register with the address of a table that contains each value in all lanes.
func (g *generator) replicated(values []float32) gp {
	var name strings.Builder
	name.WriteString("c")
	for _, v := range values {
		fmt.Fprintf(&name, "_%08x", math.Float32bits(v))
	}
	return g.table(name.String(), lanes*len(values), func(i int) uint32 { return math.Float32bits(values[i/lanes]) })
}

func (g *generator) load(v vec, from gp, offset int) { g.op("FMOVQ %d(%s), %s", offset, from, v.q()) }

func (g *generator) store(v vec, to gp, offset int) { g.op("FMOVQ %s, %d(%s)", v.q(), offset, to) }

// loadPair and storePair load and store two vectors that are neighbours in memory.
func (g *generator) loadPair(a, b vec, from gp, offset int) {
	g.op("FLDPQ %d(%s), (%s, %s)", offset, from, a.q(), b.q())
}

func (g *generator) storePair(a, b vec, to gp, offset int) {
	g.op("FSTPQ (%s, %s), %d(%s)", a.q(), b.q(), offset, to)
}

func (g *generator) zero(v vec) { g.op("VEOR %[1]s, %[1]s, %[1]s", v.as("B16")) }

func (g *generator) move(to, from vec) {
	g.op("VORR %[2]s, %[2]s, %[1]s", to.as("B16"), from.as("B16"))
}

// eachVector generates body twice: in a loop over the whole vectors of n values, and in a loop over the remaining
// values, one at a time. load reads a vector or a value at a pointer, store writes it. After body all pointers advance,
// by a vector or by a value.
func (g *generator) eachVector(n gp, pointers []gp, body func(load, store func(v vec, at gp))) {
	g.op("SUBS $%d, %s", lanes, n)
	g.op("BLT rest")
	for _, part := range []struct {
		name, move string
		count      int
	}{{"vector", "FMOVQ", lanes}, {"value", "FMOVS", 1}} {
		g.label(part.name)
		end := g.scope()
		body(
			func(v vec, at gp) { g.op("%s (%s), %s", part.move, at, v.q()) },
			func(v vec, at gp) { g.op("%s %s, (%s)", part.move, v.q(), at) },
		)
		end()
		for _, p := range pointers {
			g.op("ADD $%d, %s", 4*part.count, p)
		}
		g.op("SUBS $%d, %s", part.count, n)
		g.op("BGE %s", part.name)
		if part.count == lanes {
			g.label("rest")
			g.op("ADDS $%d, %s", lanes-1, n)
			g.op("BLT done")
		}
	}
	g.label("done")
}
