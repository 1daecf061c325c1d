package cuda

import (
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"seqembed/kernels"
	"seqembed/kernels/cuda/driver"
	"seqembed/kernels/cuda/gpu"
	"seqembed/kernels/kernelstest"
)

// geluBound is the permitted absolute error of the GELU of a 16-bit kernel, in addition to the rounding of its result.
const geluBound = 2e-7

func exactGELU(x float32) float64 { return float64(x) * 0.5 * math.Erfc(-float64(x)/math.Sqrt2) }

// halfUlp returns half the distance between two neighbouring values at v, in a type whose values have the given number
// of significant bits and whose smallest positive value is 2^least.
func halfUlp(v float64, bits, least int) float64 {
	_, e := math.Frexp(v)
	return math.Ldexp(0.5, max(e-bits, least))
}

// TestGELUFormula evaluates the formula of the 16-bit kernels in float32, with the coefficients of src/device.cuh and
// with errors of −2, 0 and 2 ulp in ex2.approx, whose error is at most 2 ulp. The error of the result must be at most
// 2e-7 plus half an ulp of float32. From −6 to 0, the relative error must be at most 1e-3.
func TestGELUFormula(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine, and slow under the race detector and on emulators")
	}
	source, err := os.ReadFile("src/device.cuh")
	if err != nil {
		t.Fatal(err)
	}
	list := regexp.MustCompile(`log2_phi\[\] = \{([^}]*)\}`).FindSubmatch(source)
	if list == nil {
		t.Fatal("src/device.cuh has no coefficients")
	}
	var coefficients []float64
	for _, text := range strings.Split(string(list[1]), ",") {
		c, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(text), "f"), 32)
		if err != nil {
			t.Fatal(err)
		}
		coefficients = append(coefficients, c)
	}
	formula := func(x float32, ulp float64) float32 {
		z := math.Abs(float64(x))
		p := float32(coefficients[0])
		for _, c := range coefficients[1:] {
			p = float32(math.FMA(float64(p), z, c))
		}
		power := float64(float32(math.Exp2(float64(p)) * (1 + ulp*0x1p-23)))
		if power < 0x1p-126 {
			power = 0
		}
		return float32(math.FMA(-z, power, math.Max(float64(x), math.Copysign(0, -1))))
	}

	worst, tail := 0.0, 0.0
	check := func(x float32) {
		want := exactGELU(x)
		for _, ulp := range []float64{-2, 0, 2} {
			got := formula(x, ulp)
			e := math.Abs(float64(got) - want)
			if e -= halfUlp(float64(got), 24, -149); !(e <= geluBound) {
				t.Fatalf("GELU(%g) is %g, and should be %g", x, got, want)
			}
			worst = max(worst, e)
			if -6 <= x && x < -0x1p-100 {
				tail = max(tail, math.Abs(float64(got)/want-1))
			}
		}
	}
	for bits := range uint32(1 << 16) {
		for _, x := range []float32{math.Float32frombits(bits << 16), fromFP16(uint16(bits))} {
			if !math.IsNaN(float64(x)) && !math.IsInf(float64(x), 0) {
				check(x)
			}
		}
	}
	const step = 211 // every 211th float32 value between 2^-20 and 16 is tried
	for bits := math.Float32bits(0x1p-20); bits < math.Float32bits(16); bits += step {
		check(math.Float32frombits(bits))
		check(-math.Float32frombits(bits))
	}
	t.Logf("at most %.3g beyond half an ulp, %.3g relative on [-6, 0)", worst, tail)
	if tail > 1e-3 {
		t.Errorf("the tail errs by %.3g of its size", tail)
	}
	if x := formula(float32(math.NaN()), 0); x == x {
		t.Errorf("NaN becomes %g", x)
	}
	if x := formula(float32(math.Copysign(0, -1)), 0); math.Float32bits(x) != 1<<31 {
		t.Errorf("-0 becomes %g", x)
	}
}

func fromFP16(bits uint16) float32 {
	var v [1]float32
	decode(kernels.FP16, v[:], []byte{byte(bits), byte(bits >> 8)})
	return v[0]
}

// alone launches a single kernel and returns the kernel's result. The input has inCols columns and the result has
// outCols columns, both in the operands' type. If outCols is inCols, the kernel works in place. Programs use the
// kernels that are tested with this function only after a product of cuBLAS.
func alone(t *testing.T, b *Backend, name string, in []float32, rows, inCols, outCols int, params func(out, in driver.Pointer) []gpu.Param) []float32 {
	t.Helper()
	size := sizeOf(b.dtype)
	result := make([]float32, rows*outCols)
	err := b.device.Do(func(c *gpu.Context) {
		var r gpu.Resources
		defer r.Free(c)
		from := r.Alloc(c, rows*pitch(inCols)*size)
		to := from // in place, if the result has as many columns as the input
		if inCols != outCols {
			to = r.Alloc(c, rows*pitch(outCols)*size)
		}
		piece, stream := r.Pin(c, rows*pitch(max(inCols, outCols))*size), r.NewStream(c)
		run := &runner{backend: b, compute: stream}
		k := (&compiler{Context: c, runner: run}).kernel(name)
		if c.Err != nil {
			return
		}
		for r := range rows {
			encode(b.dtype, piece.Bytes[r*pitch(inCols)*size:], in[r*inCols:(r+1)*inCols])
		}
		c.Upload(from, piece, 0, rows*pitch(inCols)*size, stream)
		s := submission{runner: run, Context: c}
		s.launch(k, rows, outCols, params(to, from)...)
		c.Synchronize(stream)
		c.Download(piece, to, rows*pitch(outCols)*size, stream)
		c.Synchronize(stream)
		for r := range rows {
			decode(b.dtype, result[r*outCols:(r+1)*outCols], piece.Bytes[r*pitch(outCols)*size:])
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// TestGPUGELU checks the four kernels that apply the GELU, in both 16-bit types. The kernels activate and gate get
// every value of the type. The kernels gemm_gelu and gemm_geglu get every finite value, and multiply it by the identity
// matrix first. Each result must differ from the GELU with math.Erfc by at most 2e-7 plus half an ulp of the type. The
// result for NaN and +∞ must not be finite; the result for −∞ is not checked.
func TestGPUGELU(t *testing.T) {
	requireGPU(t, kernels.FP32).Close()
	t.Setenv(cublasVariable, "none") // the package's own products apply the activation
	const cols, rows = 32, 2048
	for _, dtype := range []kernels.DType{kernels.BF16, kernels.FP16} {
		bits, least := 8, -133
		if dtype == kernels.FP16 {
			bits, least = 11, -24
		}
		all := make([]byte, 2*rows*cols)
		for i := range rows * cols {
			all[2*i], all[2*i+1] = byte(i), byte(i>>8)
		}
		values, finite, gates := make([]float32, rows*cols), make([]float32, rows*cols), make([]float32, 2*rows*cols)
		decode(dtype, values, all)
		for i, x := range values {
			if x-x == 0 { // a NaN or an infinity would spread over the whole row of a product
				finite[i] = x
			}
			at := i/cols*2*cols + i%cols
			gates[at], gates[at+cols] = x, 1
		}
		identity, gated := make([]float32, cols*cols), make([]float32, 2*cols*cols)
		bias2 := make([]float32, 2*cols)
		for i := range cols {
			identity[i*cols+i], gated[i*cols+i], bias2[cols+i] = 1, 1, 1
		}

		b := requireGPU(t, dtype)
		defer b.Close()
		batch := rowsOf(rows)
		product := func(then kernels.Activation, weights []float32, bias bool) func() []float32 {
			return func() []float32 {
				n := newNet(t, b)
				l := kernels.Linear{W: n.give(kernels.Projection, kernelstest.Tensor{Dims: []int{len(weights) / cols, cols}, Values: weights}), Then: then}
				if bias {
					l.Bias = n.give(kernels.Vector, kernelstest.Tensor{Dims: []int{2 * cols}, Values: bias2})
				}
				// The product with the identity matrix returns its input, rounded to the operands' type.
				y := n.Linear(n.input(cols, finite), l, kernels.None)
				n.Output(n.Linear(y, kernels.Linear{W: n.give(kernels.Projection, kernelstest.Tensor{Dims: []int{cols, cols}, Values: identity})}, kernels.None))
				return n.run(b, batch, limitsOf(batch))[0]
			}
		}
		for _, kernel := range []struct {
			name string
			from []float32
			run  func() []float32
		}{
			{"activate", values, func() []float32 {
				return alone(t, b, "activate_"+dtype.String(), values, rows, cols, cols,
					func(x, _ driver.Pointer) []gpu.Param { return []gpu.Param{gpu.Ptr(x), 0, gpu.Int(rows), gpu.Int(cols)} })
			}},
			{"gate", values, func() []float32 {
				return alone(t, b, "gate_"+dtype.String(), gates, rows, 2*cols, cols,
					func(out, in driver.Pointer) []gpu.Param {
						return []gpu.Param{gpu.Ptr(out), gpu.Ptr(in), gpu.Int(rows), gpu.Int(cols)}
					})
			}},
			{"gemm_gelu", finite, product(kernels.GELU, identity, false)},
			{"gemm_geglu", finite, product(kernels.GEGLU, gated, true)},
		} {
			got, worst := kernel.run(), 0.0
			for i, x := range kernel.from {
				if x != x || x > math.MaxFloat32 {
					if got[i]-got[i] == 0 {
						t.Fatalf("%s_%s: GELU(%g) is %g", kernel.name, dtype, x, got[i])
					}
					continue
				}
				if x < -math.MaxFloat32 {
					continue // the GELU of −∞ is 0, but the kernel computes −∞ · 0, which is NaN
				}
				want := exactGELU(x)
				half := max(halfUlp(want, bits, least), halfUlp(float64(got[i]), bits, least))
				e := math.Abs(float64(got[i])-want) - half
				if !(e <= geluBound) {
					t.Fatalf("%s_%s: GELU(%g) is %g, and should be %g", kernel.name, dtype, x, got[i], want)
				}
				worst = max(worst, e)
			}
			t.Logf("%s_%s: at most %.3g beyond half an ulp", kernel.name, dtype, worst)
		}
	}
}
