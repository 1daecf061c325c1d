package main

import (
	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// generator is avo's context with the few words that every kernel uses.
type generator struct {
	*build.Context
	tables map[string]operand.Mem // constants of the file by name
}

// isa is an instruction set: the width of its vectors and their registers.
type isa struct {
	name     string // ends the names of the functions
	lanes    int    // float32 values in a vector
	register func(*generator) reg.VecVirtual
}

var (
	avx2   = isa{"AVX2", 8, func(g *generator) reg.VecVirtual { return g.YMM() }}
	avx512 = isa{"AVX512", 16, func(g *generator) reg.VecVirtual { return g.ZMM() }}
)

// bytes is the size of a vector.
func (i isa) bytes() int { return 4 * i.lanes }

// function begins a leaf without a frame: it cannot be preempted, so loops
// that take long stay in Go.
func (g *generator) function(name, signature, doc string) {
	g.Function(name)
	g.Attributes(attr.NOSPLIT)
	g.SignatureExpr(signature)
	g.Doc(doc)
	g.Pragma("noescape")
}

// end returns, with the upper halves cleared so that SSE code runs at speed.
func (g *generator) end() {
	g.VZEROUPPER()
	g.RET()
}

// param loads a pointer or integer argument.
func (g *generator) param(name string) reg.GPVirtual {
	r := g.GP64()
	g.Load(g.Param(name), r)
	return r
}

// strideParam loads a count of float32 values, in bytes.
func (g *generator) strideParam(name string) reg.GPVirtual {
	r := g.param(name)
	g.SHLQ(operand.Imm(2), r)
	return r
}

func (g *generator) zero(v reg.VecVirtual) { g.VXORPS(v, v, v) }
