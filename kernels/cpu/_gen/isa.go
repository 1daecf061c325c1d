package main

import (
	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// generator is an avo context with helpers that all kernels use.
type generator struct {
	*build.Context
	tables map[string]operand.Mem    // constants in the file, by name
	held   map[uint32]reg.VecVirtual // constants in registers of the current function, by their bits
}

// isa is an instruction set.
type isa struct {
	name     string // suffix of function names
	lanes    int    // number of float32 values in a vector
	register func(*generator) reg.VecVirtual
}

var (
	avx2   = isa{"AVX2", 8, func(g *generator) reg.VecVirtual { return g.YMM() }}
	avx512 = isa{"AVX512", 16, func(g *generator) reg.VecVirtual { return g.ZMM() }}
	bf16   = isa{"BF16", 16, avx512.register} // AVX-512 with AVX512_BF16; see bf16.go
)

// bytes returns the size of a vector in bytes.
func (i isa) bytes() int { return 4 * i.lanes }

// function begins a function that has no stack frame and calls no other function. The Go scheduler cannot preempt it,
// so loops that take long are written in Go.
func (g *generator) function(name, signature string, doc ...string) {
	g.Function(name)
	g.Attributes(attr.NOSPLIT)
	g.SignatureExpr(signature)
	g.Doc(doc...)
	g.Pragma("noescape")
	g.held = map[uint32]reg.VecVirtual{}
}

// end generates the return. Before the return, the function clears the upper halves of the vector registers, because
// SSE code is slow while they hold values.
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

// strideParam loads an argument that counts float32 values and converts it to bytes.
func (g *generator) strideParam(name string) reg.GPVirtual {
	r := g.param(name)
	g.SHLQ(operand.Imm(2), r)
	return r
}

// argument returns the address of an argument. The generated function may overwrite the argument.
func (g *generator) argument(name string) operand.Mem {
	b, err := g.Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	return b.Addr
}

func (g *generator) zero(v reg.VecVirtual) { g.VXORPS(v, v, v) }
