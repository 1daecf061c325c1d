package cuda

import (
	"encoding/binary"
	"math"
	"regexp"
	"strconv"
	"strings"

	"seqembed/kernels"
)

// fakeLaunch is a launch of a kernel. The method run computes the result in plain loops, except for the two kernels
// that follow a product of fakeCublas. If the grid of any other kernel is too small, the result is incomplete or the
// test fails.
type fakeLaunch struct {
	gpu    *fakeGPU
	name   string
	spec   kernelSpec
	values map[string]uint64
	x, y   int
	shared int
}

func (k *fakeLaunch) value(name string) uint64 {
	v, ok := k.values[name]
	if !ok {
		k.gpu.t.Errorf("%s has no parameter %s in the table", k.name, name)
	}
	return v
}

func (k *fakeLaunch) num(name string) int { return int(int32(uint32(k.value(name)))) }
func (k *fakeLaunch) float(name string) float32 {
	return math.Float32frombits(uint32(k.value(name)))
}

// dtype returns the type in which the kernel's name ends.
func (k *fakeLaunch) dtype() kernels.DType {
	t, err := kernels.ParseDType(k.name[strings.LastIndex(k.name, "_")+1:])
	if err != nil {
		k.gpu.t.Error(err)
	}
	return kernels.DType(t)
}

// fakeMatrix is device memory viewed as rows. It is nil for a null pointer.
type fakeMatrix struct {
	bytes  []byte
	t      kernels.DType
	cols   int
	stride int
}

func (k *fakeLaunch) matrix(name string, rows, cols int, t kernels.DType) *fakeMatrix {
	return k.gpu.matrix(k.value(name), rows, cols, pitch(cols), t)
}

func (f *fakeGPU) matrix(at uint64, rows, cols, stride int, t kernels.DType) *fakeMatrix {
	if at == 0 {
		return nil
	}
	return &fakeMatrix{f.bytes(at, rows*stride*sizeOf(t)), t, cols, stride}
}

func (m *fakeMatrix) row(r int) []float32 {
	v := make([]float32, m.cols)
	decode(m.t, v, m.bytes[r*m.stride*sizeOf(m.t):])
	return v
}

func (m *fakeMatrix) set(r, from int, values []float32) {
	if m != nil && len(values) > 0 {
		encode(m.t, m.bytes[(r*m.stride+from)*sizeOf(m.t):], values)
	}
}

func (k *fakeLaunch) vector(name string, n int) []float32 {
	if k.value(name) == 0 {
		return make([]float32, n)
	}
	return (&fakeMatrix{k.gpu.bytes(k.value(name), 4*n), kernels.FP32, n, n}).row(0)
}

func (k *fakeLaunch) ints(name string, n int) []int {
	raw := k.gpu.bytes(k.value(name), 4*n)
	list := make([]int, n)
	for i := range list {
		list[i] = int(int32(binary.LittleEndian.Uint32(raw[4*i:])))
	}
	return list
}

func (k *fakeLaunch) putInts(name string, first int, values ...int) {
	raw := k.gpu.bytes(k.value(name)+uint64(4*first), 4*len(values))
	for i, v := range values {
		binary.LittleEndian.PutUint32(raw[4*i:], uint32(v))
	}
}

func fakeGELU(x float32) float32 {
	return float32(float64(x) * 0.5 * math.Erfc(-float64(x)/math.Sqrt2))
}

// run runs the loops of the kernel. It chooses them by the kernel's name, from which it removes the type and numbers
// such as the head size.
func (k *fakeLaunch) run() {
	family := regexp.MustCompile(`_(bf16|fp16|fp32|\d+)\b`).ReplaceAllString(regexp.MustCompile(`_\d+_`).ReplaceAllString(k.name, "_"), "")
	switch family {
	case "positions":
		cu := k.ints("cu", k.x+1)
		for s := range k.x {
			for t := cu[s]; t < cu[s+1]; t++ {
				k.putInts("pos", t, t-cu[s])
				k.putInts("seq", t, s)
			}
		}
	case "embed_scale":
		cu := k.ints("cu", k.x+1)
		ids := k.ints("ids", cu[k.x])
		for s := range k.x {
			masked := 0
			for _, id := range ids[cu[s]:cu[s+1]] {
				if id == k.num("mask") {
					masked++
				}
			}
			k.putInts("scale", s, int(math.Float32bits(k.float("base")/(1-float32(masked)/float32(cu[s+1]-cu[s])))))
		}
	case "embed":
		k.embed()
	case "layernorm":
		widest, err := strconv.Atoi(strings.Split(k.name, "_")[1])
		if err != nil {
			k.gpu.t.Error(err)
		}
		k.layernorm(k.spec.tile.rows*k.x, widest)
	case "rotate_keys":
		k.rotateKeys()
	case "attention", "attention_rotary":
		k.attention(family == "attention_rotary")
	case "activate", "gate": // these do nothing: they follow a product of fakeCublas, which computes nothing
	case "pool":
		k.pool()
	case "narrow":
		k.convert(k.dtype(), kernels.FP32)
	case "widen":
		k.convert(kernels.FP32, k.dtype())
	case "gemm", "gemm_gelu", "gemm_geglu":
		k.gemm(family)
	default:
		k.gpu.t.Errorf("%s is launched, and the fake does not know it", k.name)
	}
}

func (k *fakeLaunch) convert(to, from kernels.DType) {
	rows, cols := k.num("rows"), k.num("cols")
	dst := k.gpu.matrix(k.value("dst"), rows, cols, k.num("dst_pitch"), to)
	src := k.gpu.matrix(k.value("src"), rows, cols, k.num("src_pitch"), from)
	for r := range rows {
		dst.set(r, 0, src.row(r)[:min(cols, 256*k.x)])
	}
}

func (k *fakeLaunch) embed() {
	rows, cols, t := k.num("rows"), k.num("cols"), k.dtype()
	out32, out := k.matrix("out32", rows, cols, kernels.FP32), k.matrix("out", rows, cols, t)
	ids, seq := k.ints("ids", rows), k.ints("seq", rows)
	offset := k.vector("type", cols)
	for r := range min(rows, k.x) {
		row := k.gpu.matrix(k.value("table")+uint64(ids[r]*pitch(cols)*sizeOf(t)), 1, cols, pitch(cols), t).row(0)
		scale := k.gpu.matrix(k.value("scale")+uint64(4*seq[r]), 1, 1, 1, kernels.FP32).row(0)[0]
		for c := range row {
			row[c] *= scale
			if ids[r] == k.num("mask") {
				row[c] = 0
			}
			row[c] += offset[c]
		}
		out32.set(r, 0, row)
		out.set(r, 0, row)
	}
}

func (k *fakeLaunch) layernorm(covered, widest int) {
	rows, cols := k.num("rows"), k.num("cols")
	if cols > widest {
		k.gpu.t.Errorf("%s over %d columns", k.name, cols)
	}
	out32, out := k.matrix("out32", rows, cols, kernels.FP32), k.matrix("out", rows, cols, k.dtype())
	in, add := k.matrix("in", rows, cols, kernels.FP32), k.matrix("add", rows, cols, kernels.FP32)
	gain, bias := k.vector("gain", cols), k.vector("bias", cols)
	for r := range min(rows, covered) {
		z := in.row(r)
		if add != nil {
			for c, v := range add.row(r) {
				z[c] += v
			}
		}
		mean, variance := 0.0, 0.0
		for _, v := range z {
			mean += float64(v) / float64(cols)
		}
		for _, v := range z {
			variance += (float64(v) - mean) * (float64(v) - mean) / float64(cols)
		}
		scale := 1 / math.Sqrt(variance+float64(k.float("eps")))
		for c, v := range z {
			z[c] = float32((float64(v)-mean)*scale*float64(gain[c]) + float64(bias[c]))
		}
		out32.set(r, 0, z)
		out.set(r, 0, z)
	}
}

// turn multiplies the heads of a row by a factor and rotates them. Each head has d columns. The argument from is the
// column at which the first head begins.
func (k *fakeLaunch) turn(row []float32, from, position, heads, d int, factor float32) {
	turns := k.gpu.matrix(k.value("turns")+uint64(position*d*4), 1, d, d, kernels.FP32).row(0)
	for h := range heads {
		head := row[from+h*d:]
		for j := range d / 2 {
			a, b := head[j]*factor, head[d/2+j]*factor
			head[j] = a*turns[2*j] - b*turns[2*j+1]
			head[d/2+j] = b*turns[2*j] + a*turns[2*j+1]
		}
	}
}

func (k *fakeLaunch) rotateKeys() {
	t, rows, heads, d := k.dtype(), k.num("rows"), k.num("heads"), k.num("d")
	width, pos := heads*d, k.ints("pos", k.num("rows"))
	out, qkv := k.matrix("out", rows, width, t), k.matrix("qkv", rows, 3*width, t)
	for r := range rows {
		row := qkv.row(r)
		k.turn(row, width, pos[r], heads, d, 1)
		out.set(r, 0, row[width:width+min(width, 2*512*k.x)]) // a block rotates 512 pairs of columns
	}
}

func (k *fakeLaunch) attention(rotary bool) {
	t, heads := k.dtype(), k.num("heads")
	parts := strings.Split(k.name, "_")
	d, err := strconv.Atoi(parts[len(parts)-2])
	const rowsPerBlock = 64
	shared := map[int]int{16: 12288, 24: 20480, 32: 20480, 64: 36864, 128: 69632}[d]
	if t == kernels.FP32 {
		shared = 4 * (128*(d+4) + 64*36)
	}
	if err != nil || k.y != heads || k.shared != shared {
		k.gpu.t.Errorf("%s is launched for %d of %d heads with %d bytes of shared memory: %v", k.name, k.y, heads, k.shared, err)
	}
	slopes := k.vector("slopes", heads)
	if t != kernels.FP32 { // the backend has divided the slopes for the 16-bit kernels by the scale
		for i := range slopes {
			slopes[i] *= k.float("scale")
		}
	}
	blocks := k.ints("blocks", 2*k.x)
	for i := range k.x {
		s, from := blocks[2*i], blocks[2*i+1]
		cu := k.gpu.bytes(k.value("cu")+uint64(4*s), 8)
		begin, end := int(binary.LittleEndian.Uint32(cu)), int(binary.LittleEndian.Uint32(cu[4:]))
		n, width := end-begin, heads*d
		qkv := k.gpu.matrix(k.value("qkv")+uint64(begin*pitch(3*width)*sizeOf(t)), n, 3*width, pitch(3*width), t)
		out := k.gpu.matrix(k.value("out")+uint64(begin*pitch(width)*sizeOf(t)), n, width, pitch(width), t)
		var keys *fakeMatrix
		if rotary && t != kernels.FP32 {
			keys = k.gpu.matrix(k.value("keys")+uint64(begin*pitch(width)*sizeOf(t)), n, width, pitch(width), t)
		}
		all, rounded := make([][]float32, n), make([]byte, 3*width*sizeOf(t))
		for r := range all {
			all[r] = qkv.row(r)
			if rotary { // the 16-bit kernels round rotated queries and keys
				k.turn(all[r], 0, r, heads, d, k.float("qscale"))
				if t == kernels.FP32 {
					k.turn(all[r], width, r, heads, d, 1)
				} else {
					copy(all[r][width:], keys.row(r))
				}
				encode(t, rounded, all[r])
				decode(t, all[r], rounded)
			}
		}
		p := make([]float64, n)
		for r := from; r < min(n, from+rowsPerBlock); r++ {
			for h := range heads {
				top, sum := math.Inf(-1), 0.0
				for j := range p {
					p[j] = 0
					for c := range d {
						p[j] += float64(all[r][h*d+c]) * float64(all[j][width+h*d+c])
					}
					p[j] = p[j]*float64(k.float("scale")) - float64(slopes[h])*math.Abs(float64(r-j))
					top = max(top, p[j])
				}
				for j := range p {
					p[j] = math.Exp(p[j] - top)
					sum += p[j]
				}
				head := make([]float32, d)
				for c := range head {
					v := 0.0
					for j := range p {
						v += p[j] * float64(all[j][2*width+h*d+c])
					}
					head[c] = float32(v / sum)
				}
				out.set(r, h*d, head)
			}
		}
	}
}

func (k *fakeLaunch) pool() {
	cols, sequences := k.num("cols"), k.num("sequences")
	ranges, out := k.ints("ranges", 2*sequences), k.matrix("out", sequences, cols, kernels.FP32)
	for s := range sequences {
		mean := make([]float64, cols)
		for r := ranges[2*s]; r < ranges[2*s+1]; r++ {
			for c, v := range k.gpu.matrix(k.value("in")+uint64(4*r*pitch(cols)), 1, cols, pitch(cols), kernels.FP32).row(0) {
				mean[c] += float64(v)
			}
		}
		row := make([]float32, cols)
		for c := range row {
			row[c] = float32(mean[c] / float64(ranges[2*s+1]-ranges[2*s]))
		}
		out.set(s, 0, row[:min(cols, 32*k.x)])
	}
}

// gemm computes the whole matrix product. It fails the test if the grid does not have the size that covers the result.
func (k *fakeLaunch) gemm(family string) {
	t, m, n, inner := k.dtype(), k.num("M"), k.num("N"), k.num("K")
	tile, shared, rows := 128, 65536, n
	if t == kernels.FP32 {
		tile, shared = 64, 30720
	}
	if family == "gemm_geglu" {
		tile, rows = tile/2, 2*n
	}
	if k.shared != shared || k.x != ((m+127)/128)*((n+tile-1)/tile) {
		k.gpu.t.Errorf("%s for [%d %d] is launched on %d blocks with %d bytes of shared memory", k.name, m, n, k.x, k.shared)
	}
	in, w := k.matrix("in", m, inner, t), k.matrix("w", rows, inner, t)
	out32, out, add := k.matrix("out32", m, n, kernels.FP32), k.matrix("out", m, n, t), k.matrix("add", m, n, kernels.FP32)
	if t == kernels.FP32 && out32 != nil && out != nil {
		k.gpu.t.Errorf("%s is given both outputs", k.name)
	}
	bias := k.vector("bias", rows)
	weights := make([][]float32, rows)
	for r := range weights {
		weights[r] = w.row(r)
	}
	for r := range m {
		x, y := in.row(r), make([]float32, rows)
		for c := range y {
			y[c] = dot(x, weights[c]) + bias[c]
			if family == "gemm_gelu" || family == "gemm_geglu" && c < n {
				y[c] = fakeGELU(y[c])
			}
		}
		if family == "gemm_geglu" {
			for c := range n {
				y[c] *= y[n+c]
			}
		}
		if add != nil {
			for c, v := range add.row(r) {
				y[c] += v
			}
		}
		out32.set(r, 0, y[:n])
		out.set(r, 0, y[:n])
	}
}

func dot(a, b []float32) float32 {
	sum := 0.0
	for i := range a {
		sum += float64(a[i]) * float64(b[i])
	}
	return float32(sum)
}
