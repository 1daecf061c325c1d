package hostsim_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"seqembed/kernels"
	"seqembed/kernels/cuda/hostsim"
)

// program is the simulator with the project's kernels, built once.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "hostsim")
	if err != nil {
		return "", err
	}
	files, err := filepath.Glob("../src/*.cu")
	if err != nil {
		return "", err
	}
	return hostsim.Build(dir, "../src", files...)
})

func TestMain(m *testing.M) {
	code := m.Run()
	if !testing.Short() {
		if path, err := program(); err == nil {
			os.RemoveAll(filepath.Dir(path))
		}
	}
	os.Exit(code)
}

// whole leaves a test to the full run: the simulation is a process of its own,
// and looks the same to the race detector and without the assembly.
func whole(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("the simulation runs in the full test run only")
	}
}

// start opens a simulated device, or skips where it cannot be built.
func start(t *testing.T, program string, err error) *hostsim.Device {
	t.Helper()
	if errors.Is(err, hostsim.ErrNoCompiler) {
		t.Skipf("the kernels are not simulated: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	d, err := hostsim.Start(program)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// operand is a type of matrix operands.
type operand struct {
	suffix string
	size   int
	round  func(float32) float32
	bits   func(float32) uint32 // of a value that round has given
	value  func(uint32) float32
}

var (
	fp32 = operand{"fp32", 4, func(v float32) float32 { return v }, math.Float32bits, math.Float32frombits}
	bf16 = operand{"bf16", 2, roundBfloat16,
		func(v float32) uint32 { return math.Float32bits(v) >> 16 },
		func(b uint32) float32 { return math.Float32frombits(b << 16) }}
	fp16 = operand{"fp16", 2, roundHalf, halfBits, halfValue}
)

func roundBfloat16(v float32) float32 {
	step := math.Ldexp(1, exponent(v)-8)
	return float32(math.RoundToEven(float64(v)/step) * step)
}

func roundHalf(v float32) float32 {
	step := math.Ldexp(1, max(exponent(v)-11, -24))
	return float32(math.RoundToEven(float64(v)/step) * step)
}

func exponent(v float32) int {
	_, e := math.Frexp(float64(v))
	return e
}

func halfBits(v float32) uint32 {
	sign := math.Float32bits(v) >> 31 << 15
	size := math.Abs(float64(v))
	if size < 0x1p-14 {
		return sign | uint32(size*0x1p24)
	}
	fraction, e := math.Frexp(size)
	return sign | uint32(e+14)<<10 | uint32(fraction*0x1p11)&1023
}

func halfValue(b uint32) float32 {
	e, size := int(b>>10&31), float64(b&1023)
	if e == 31 {
		return float32(math.NaN())
	}
	if e > 0 {
		size += 1024
	}
	size = math.Ldexp(size, max(e, 1)-25)
	if b>>15 == 1 {
		size = -size
	}
	return float32(size)
}

// backend is the least that stands between kernels' operations and the
// launches that src/README.md describes; kernels/cuda has the real one.
type backend struct {
	dev     *hostsim.Device
	operand operand
}

func (b *backend) Name() string { return "simulated " + b.operand.suffix }
func (b *backend) Close() error { return b.dev.Close() }

func pitch(cols int) int { return (cols + 7) / 8 * 8 }

func (b *backend) alloc(bytes int) uint64 {
	at, _ := b.dev.Alloc(bytes) // the device keeps its first error for the next launch
	return at
}

// upload writes rows with their pitch; the padding stays NaN.
func (b *backend) upload(at uint64, values []float32, cols int, t operand) {
	bytes := make([]byte, 0, len(values)/cols*pitch(cols)*t.size)
	for r := 0; r < len(values); r += cols {
		for c := range pitch(cols) {
			word := ^uint32(0)
			if c < cols {
				word = t.bits(t.round(values[r+c]))
			}
			if t.size == 2 {
				bytes = binary.LittleEndian.AppendUint16(bytes, uint16(word))
			} else {
				bytes = binary.LittleEndian.AppendUint32(bytes, word)
			}
		}
	}
	_ = b.dev.Write(at, bytes)
}

func (b *backend) download(values []float32, at uint64, cols int, t operand) error {
	bytes := make([]byte, len(values)/cols*pitch(cols)*t.size)
	if err := b.dev.Read(bytes, at); err != nil {
		return err
	}
	for i := range values {
		at := (i/cols*pitch(cols) + i%cols) * t.size
		if t.size == 2 {
			values[i] = t.value(uint32(binary.LittleEndian.Uint16(bytes[at:])))
		} else {
			values[i] = t.value(binary.LittleEndian.Uint32(bytes[at:]))
		}
	}
	return nil
}

func (b *backend) ints(values []int32) uint64 {
	bytes := make([]byte, 0, 4*len(values))
	for _, v := range values {
		bytes = binary.LittleEndian.AppendUint32(bytes, uint32(v))
	}
	at := b.alloc(len(bytes))
	_ = b.dev.Write(at, bytes)
	return at
}

func (b *backend) floats(values []float32) uint64 {
	words := make([]int32, len(values))
	for i, v := range values {
		words[i] = int32(math.Float32bits(v))
	}
	return b.ints(words)
}

type weight struct {
	role       kernels.Role
	rows, cols int
	at         uint64
}

func (w *weight) Role() kernels.Role { return w.role }
func (w *weight) Dims() (int, int)   { return w.rows, w.cols }

func (b *backend) Load(role kernels.Role, parts ...kernels.Source) (kernels.Weight, error) {
	rows, cols, err := kernels.StackedDims(role, parts)
	if err != nil {
		return nil, err
	}
	var values []float32
	for _, p := range parts {
		n := 1
		for _, d := range p.Shape() {
			n *= d
		}
		part := make([]float32, n)
		if err := p.ReadRows(part, 0); err != nil {
			return nil, err
		}
		values = append(values, part...)
	}
	if role == kernels.Vector {
		return &weight{role, 1, len(values), b.floats(values)}, nil
	}
	w := &weight{role, rows, cols, b.alloc(rows * pitch(cols) * b.operand.size)}
	b.upload(w.at, values, cols, b.operand)
	return w, nil
}

func (b *backend) NewStream(limits kernels.Limits) (kernels.Stream, error) {
	if limits.Tokens < 1 || limits.Sequences < 1 {
		return nil, fmt.Errorf("no room: %+v", limits)
	}
	return &stream{b: b, limits: limits}, nil
}

type buffer struct {
	cols        int
	kind        kernels.Kind
	perSequence bool
	out32, out  uint64 // residual and operand; in fp32 only the first
}

func (f *buffer) Cols() int          { return f.cols }
func (f *buffer) Kind() kernels.Kind { return f.kind }
func (f *buffer) PerSequence() bool  { return f.perSequence }

// as is the address of the values as operands.
func (f *buffer) as() uint64 {
	if f.out == 0 {
		return f.out32
	}
	return f.out
}
