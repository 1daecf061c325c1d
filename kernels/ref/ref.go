// Package ref is the executable specification of the operations in kernels: plain sequential loops in float64, without
// fusion, blocking or parallelism, and with separate memory for every value. The conformance suite compares every other
// backend with it.
//
// The same loops in float32 are the baseline. It determines how much error a backend may have. The baseline for a
// 16-bit type rounds weights and operands of products to that type, and also the intermediate results that an operation
// without fusion would store in that type.
package ref

import (
	"fmt"
	"math"
	"slices"

	"seqembed/kernels"
)

// New returns the reference backend, which computes in float64.
func New() kernels.Backend { return backend[float64]{kernels.FP32} }

// NewBaseline returns a backend that runs the loops of New in float32, with one accumulator for each sum. Lookup
// tables, and the operands of matrix products and of attention, are rounded to t.
func NewBaseline(t kernels.DType) kernels.Backend { return backend[float32]{t} }

type float interface{ float32 | float64 }

type backend[F float] struct{ operands kernels.DType }

func (b backend[F]) Name() string { return fmt.Sprintf("reference %T, %s", F(0), b.operands) }
func (backend[F]) Close() error   { return nil }

func (b backend[F]) NewModel() kernels.Model { return model[F](b) }

type model[F float] struct{ operands kernels.DType }

func (model[F]) Close() error { return nil }

type weight struct {
	role       kernels.Role
	rows, cols int
	at         []float32 // [rows, cols]
}

func (w *weight) Role() kernels.Role { return w.role }
func (w *weight) Dims() (int, int)   { return w.rows, w.cols }
func (w *weight) row(r int) []float32 {
	return w.at[r*w.cols : (r+1)*w.cols]
}

func (m model[F]) Load(role kernels.Role, parts ...kernels.Source) (kernels.Weight, error) {
	rows, cols, err := kernels.StackedDims(role, parts)
	if err != nil {
		return nil, err
	}
	w := &weight{role: role, rows: rows, cols: cols, at: make([]float32, rows*cols)}
	if err := kernels.ReadStacked(parts, w.at, 0); err != nil {
		return nil, err
	}
	if role != kernels.Vector {
		Round(m.operands, w.at)
	}
	return w, nil
}

func values(w kernels.Weight) *weight   { return w.(*weight) }
func vector(w kernels.Weight) []float32 { return values(w).at }

func (b backend[F]) Compile(p *kernels.Program, l kernels.Limits) (kernels.Runner, error) {
	if err := p.Err(); err != nil {
		return nil, err
	}
	return &runner[F]{p, l, b.operands}, l.Check()
}

type runner[F float] struct {
	program  *kernels.Program
	limits   kernels.Limits
	operands kernels.DType
}

func (*runner[F]) Profile(*kernels.Profile) bool { return false }
func (*runner[F]) Close() error                  { return nil }

func (r *runner[F]) Start(b kernels.Batch, dst [][]float32) (wait func() error) {
	err := r.program.CheckRun(r.limits, b, dst)
	if err == nil {
		(&run[F]{runner: r, batch: b, values: map[kernels.Value]*matrix[F]{}}).run(dst)
	}
	return func() error { return err }
}

// matrix is a value of a program, before and after it is rounded to the operand type.
type matrix[F float] struct {
	cols    int
	at      []F // values as computed; those of an attention are rounded
	operand []F // values rounded to the operand type
}

func row[F float](at []F, cols, r int) []F { return at[r*cols : (r+1)*cols] }

// run executes a program on one batch.
type run[F float] struct {
	*runner[F]
	batch  kernels.Batch
	values map[kernels.Value]*matrix[F]
}

func (r *run[F]) run(dst [][]float32) {
	for _, op := range r.program.Ops() {
		if o, ok := op.Do.(kernels.Output); ok {
			for i, v := range r.values[op.In].at {
				dst[o][i] = float32(v)
			}
			continue
		}
		cols := r.program.Cols(op.Out)
		out := &matrix[F]{cols: cols, at: make([]F, r.program.Rows(op.Out, r.batch)*cols)}
		switch o := op.Do.(type) {
		case kernels.Embed:
			r.embed(o, out)
		case kernels.Linear:
			stored := r.program.Precision(op.Out) == kernels.Operand
			r.linear(o, out, r.values[op.In], r.values[op.Add], stored)
		case kernels.Norm:
			r.norm(o, out, r.values[op.In])
		case kernels.Attention:
			r.attention(o, out, r.values[op.In])
		case kernels.Range:
			r.pool(o, out, r.values[op.In])
		}
		out.operand = r.stored(slices.Clone(out.at))
		if _, ok := op.Do.(kernels.Attention); ok {
			out.at = out.operand // as on a GPU, attention writes its result in the operand type only
		}
		r.values[op.Out] = out
	}
}

// stored rounds the elements of the slice at to the operand type, in place, and returns the slice.
func (r *run[F]) stored(at []F) []F {
	if r.operands != kernels.FP32 {
		for i, v := range at {
			at[i] = F(round(r.operands, float64(v)))
		}
	}
	return at
}

func (r *run[F]) embed(o kernels.Embed, out *matrix[F]) {
	b := r.batch
	for q := range b.Sequences() {
		ids := b.IDs[b.CuSeqlens[q]:b.CuSeqlens[q+1]]
		masked := 0
		for _, id := range ids {
			if id == o.Mask {
				masked++
			}
		}
		scale := F(o.Scale) / (1 - F(masked)/F(len(ids)))
		for i, id := range ids {
			to := row(out.at, out.cols, int(b.CuSeqlens[q])+i)
			for c, v := range values(o.Table).row(int(id)) {
				to[c] = F(v) * scale
				if id == o.Mask {
					to[c] = 0
				}
				if o.Type != nil {
					to[c] += F(vector(o.Type)[c])
				}
			}
		}
	}
}

// linear computes a Linear. If stored is set, it rounds the product before the activation, like a backend that stores
// the product in the operand type and then applies the activation.
func (r *run[F]) linear(o kernels.Linear, out, x, add *matrix[F], stored bool) {
	width, _ := o.W.Dims()
	z := make([]F, width)
	for t := range r.batch.IDs {
		in, to := row(x.operand, x.cols, t), row(out.at, out.cols, t)
		dots(z, in, values(o.W).at, len(in))
		for n := range z {
			if o.Bias != nil {
				z[n] += F(vector(o.Bias)[n])
			}
			if add != nil {
				z[n] += row(add.at, add.cols, t)[n]
			}
		}
		if stored && o.Then != kernels.Identity {
			r.stored(z)
		}
		for c := range to {
			switch o.Then {
			case kernels.Identity:
				to[c] = z[c]
			case kernels.GELU:
				to[c] = gelu(z[c])
			case kernels.GEGLU:
				to[c] = gelu(z[c]) * z[len(to)+c]
			default:
				panic(fmt.Sprintf("ref: no formula for %s", o.Then))
			}
		}
	}
}

// dots sets z[n] to the dot product of x and row n of a matrix whose rows begin stride elements apart. It adds in the
// order of the columns. It computes four sums at a time, because each addition to a sum has to wait for the previous
// addition to the same sum.
func dots[F, W float](z, x []F, matrix []W, stride int) {
	row := func(n int) []W { return matrix[n*stride:][:len(x)] }
	n := 0
	for ; n+4 <= len(z); n += 4 {
		a, b, c, d := row(n), row(n+1), row(n+2), row(n+3)
		var p, q, r, s F
		for k, v := range x {
			p += v * F(a[k])
			q += v * F(b[k])
			r += v * F(c[k])
			s += v * F(d[k])
		}
		z[n], z[n+1], z[n+2], z[n+3] = p, q, r, s
	}
	for ; n < len(z); n++ {
		sum := F(0)
		for k, w := range row(n) {
			sum += x[k] * F(w)
		}
		z[n] = sum
	}
}

// gelu returns x·Φ(x). It uses erfc, which is accurate for large negative x, too.
func gelu[F float](x F) F { return x * F(0.5*math.Erfc(-float64(x)/math.Sqrt2)) }

func (r *run[F]) norm(o kernels.Norm, out, x *matrix[F]) {
	for t := range r.batch.IDs {
		z := row(x.at, x.cols, t)
		mean, variance := F(0), F(0)
		for _, v := range z {
			mean += v / F(len(z))
		}
		for _, v := range z {
			variance += (v - mean) * (v - mean) / F(len(z))
		}
		scale := 1 / F(math.Sqrt(float64(variance+F(o.Eps))))
		to := row(out.at, out.cols, t)
		for c, v := range z {
			to[c] = (v-mean)*scale*F(vector(o.Gain)[c]) + F(vector(o.Bias)[c])
		}
	}
}

// rotate scales a query or key z by factor and rotates it by its position.
func rotate[F float](z []F, o *kernels.Rotary, position int, factor F) {
	half := len(o.InvFreq)
	for j, f := range o.InvFreq {
		sin64, cos64 := math.Sincos(float64(float32(position) * f))
		sin, cos := F(sin64), F(cos64)
		a, b := z[j]*factor, z[j+half]*factor
		z[j] = a*cos - b*sin
		z[j+half] = b*cos + a*sin
	}
}

// attention computes an Attention. It rounds rotated queries and keys to the operand type.
func (r *run[F]) attention(o kernels.Attention, out, x *matrix[F]) {
	width := out.cols
	d := width / o.Heads
	for q := range r.batch.Sequences() {
		first, n := int(r.batch.CuSeqlens[q]), r.batch.Len(q)
		qkv := slices.Clone(x.operand[first*3*width : (first+n)*3*width])
		part := func(i, part, head int) []F { // part is 0 for the query, 1 for the key, 2 for the value
			return qkv[(3*i+part)*width+head*d:][:d]
		}
		for i := 0; o.Rotary != nil && i < n; i++ {
			for h := range o.Heads {
				rotate(part(i, 0, h), o.Rotary, i, F(o.Rotary.QScale))
				rotate(part(i, 1, h), o.Rotary, i, 1)
				r.stored(part(i, 0, h))
				r.stored(part(i, 1, h))
			}
		}
		p := make([]F, n)
		for h := range o.Heads {
			for i := range n {
				dots(p, part(i, 0, h), qkv[width+h*d:], 3*width)
				top := F(math.Inf(-1))
				for j := range p {
					p[j] *= F(o.Scale)
					if o.Slopes != nil {
						p[j] -= F(o.Slopes[h]) * F(max(i-j, j-i))
					}
					top = max(top, p[j])
				}
				sum := F(0)
				for j := range p {
					p[j] = F(math.Exp(float64(p[j] - top)))
					sum += p[j]
				}
				to := row(out.at, width, first+i)[h*d:][:d]
				for j := range p {
					weight := p[j] / sum
					for c, v := range part(j, 2, h)[:len(to)] {
						to[c] += weight * v
					}
				}
			}
		}
	}
}

func (r *run[F]) pool(o kernels.Range, out, x *matrix[F]) {
	for q := range r.batch.Sequences() {
		from, to := o.Of(r.batch.Len(q))
		sum := row(out.at, out.cols, q)
		for i := from; i < to; i++ {
			for c, v := range row(x.at, x.cols, int(r.batch.CuSeqlens[q])+i) {
				sum[c] += v / F(to-from)
			}
		}
	}
}
