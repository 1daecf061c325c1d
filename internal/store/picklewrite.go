package store

import (
	"encoding/binary"
	"math"
)

// pickle builds a stream in Python's pickle protocol 2 from the opcodes that PyTorch's restricted unpickler accepts.
// Most of its methods append the code that makes the unpickler push a value onto its stack. The stream is in buf, which
// the owner may empty at any time.
type pickle struct{ buf []byte }

// Opcodes of pickles, named as in Python's pickletools.
const (
	opProto           = '\x80'
	opStop            = '.'
	opMark            = '('
	opBinGet          = 'h'
	opBinPut          = 'q'
	opBinUnicode      = 'X'
	opBinFloat        = 'G'
	opBinInt          = 'J'
	opBinInt1         = 'K'
	opBinInt2         = 'M'
	opLong1           = '\x8a' // the next byte is the length of the integer in bytes
	opNewFalse        = '\x89'
	opEmptyDict       = '}'
	opSetItems        = 'u'
	opEmptyList       = ']'
	opAppend          = 'a'
	opAppends         = 'e'
	opEmptyTuple      = ')'
	opTuple1          = '\x85'
	opTuple2          = '\x86'
	opTuple           = 't'
	opGlobal          = 'c'
	opReduce          = 'R'
	opBinPersistentID = 'Q'
)

func (p *pickle) op(codes ...byte) { p.buf = append(p.buf, codes...) }

// put makes the unpickler store the top of its stack in its memo, under a number. get pushes the value that has this
// number.
func (p *pickle) put(memo byte) { p.op(opBinPut, memo) }
func (p *pickle) get(memo byte) { p.op(opBinGet, memo) }

func (p *pickle) text(s string) {
	p.op(opBinUnicode)
	p.buf = binary.LittleEndian.AppendUint32(p.buf, uint32(len(s)))
	p.buf = append(p.buf, s...)
}

// number pushes an integer, which must not be negative.
func (p *pickle) number(n int) {
	switch {
	case n <= math.MaxUint8:
		p.op(opBinInt1, byte(n))
	case n <= math.MaxUint16:
		p.op(opBinInt2)
		p.buf = binary.LittleEndian.AppendUint16(p.buf, uint16(n))
	case n <= math.MaxInt32:
		p.op(opBinInt)
		p.buf = binary.LittleEndian.AppendUint32(p.buf, uint32(n))
	default:
		p.op(opLong1, 8)
		p.buf = binary.LittleEndian.AppendUint64(p.buf, uint64(n))
	}
}

// tuple pushes a tuple of one or two numbers.
func (p *pickle) tuple(numbers []int) {
	for _, n := range numbers {
		p.number(n)
	}
	p.op(opTuple1 + byte(len(numbers)-1))
}

// floats pushes a list of Python floats, which are float64.
func (p *pickle) floats(values []float32) {
	p.op(opEmptyList, opMark)
	for _, v := range values {
		p.op(opBinFloat)
		p.buf = binary.BigEndian.AppendUint64(p.buf, math.Float64bits(float64(v)))
	}
	p.op(opAppends)
}

// global pushes the Python object called name in module.
func (p *pickle) global(module, name string) {
	p.op(opGlobal)
	p.buf = append(p.buf, module+"\n"+name+"\n"...)
}
