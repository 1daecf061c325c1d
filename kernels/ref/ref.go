// Package ref is the executable specification of the operations in kernels:
// plain loops over float64, one after the other, with nothing fused, blocked
// or parallel. The conformance suite compares every other backend with it.
//
// The same loops over float32 are the baseline that says how much error a
// backend of that precision may have.
//
// Weights keep the float32 values that they were loaded with; everything
// else, activations included, is of the chosen type, whatever the buffer's
// kind.
package ref

import (
	"fmt"
	"math"
	"slices"

	"seqembed/kernels"
)

// New returns the specification, which computes in float64.
func New() kernels.Backend { return backend[float64]{} }

// NewFloat32 returns the same loops in float32, each sum in one accumulator.
func NewFloat32() kernels.Backend { return backend[float32]{} }

type float interface{ float32 | float64 }

type backend[F float] struct{}

func (backend[F]) Name() string { return fmt.Sprintf("reference %T", F(0)) }
func (backend[F]) Close() error { return nil }

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

func (backend[F]) Load(role kernels.Role, parts ...kernels.Source) (kernels.Weight, error) {
	rows, cols, err := kernels.StackedDims(role, parts)
	if err != nil {
		return nil, err
	}
	w := &weight{role: role, rows: rows, cols: cols}
	for _, p := range parts {
		n := 1
		for _, d := range p.Shape() {
			n *= d
		}
		part := make([]float32, n)
		if err := p.ReadRows(part, 0); err != nil {
			return nil, err
		}
		w.at = append(w.at, part...)
	}
	return w, nil
}

func (backend[F]) NewStream(limits kernels.Limits) (kernels.Stream, error) {
	if limits.Tokens < 1 || limits.Sequences < 1 {
		return nil, fmt.Errorf("a stream needs room for one token and one sequence, not %+v", limits)
	}
	return &stream[F]{limits: limits}, nil
}

type buffer[F float] struct {
	cols        int
	kind        kernels.Kind
	perSequence bool
	at          []F
}

func (b *buffer[F]) Cols() int          { return b.cols }
func (b *buffer[F]) Kind() kernels.Kind { return b.kind }
func (b *buffer[F]) PerSequence() bool  { return b.perSequence }
func (b *buffer[F]) row(r int) []F      { return b.at[r*b.cols : (r+1)*b.cols] }

func values(w kernels.Weight) *weight   { return w.(*weight) }
func vector(w kernels.Weight) []float32 { return values(w).at }

type stream[F float] struct {
	limits kernels.Limits
	batch  kernels.Batch
	err    error
}

func (s *stream[F]) of(b kernels.Buffer) *buffer[F] { return b.(*buffer[F]) }

func (s *stream[F]) Tokens(cols int, k kernels.Kind) kernels.Buffer {
	return &buffer[F]{cols: cols, kind: k, at: make([]F, s.limits.Tokens*cols)}
}

func (s *stream[F]) Sequences(cols int) kernels.Buffer {
	return &buffer[F]{cols: cols, kind: kernels.Residual, perSequence: true, at: make([]F, s.limits.Sequences*cols)}
}

func (s *stream[F]) Reuse(b kernels.Buffer, cols int) kernels.Buffer {
	from := s.of(b)
	if cols > from.cols {
		panic(fmt.Sprintf("reuse: %d columns do not fit in %d", cols, from.cols))
	}
	return &buffer[F]{cols: cols, kind: from.kind, perSequence: from.perSequence, at: from.at}
}

func (s *stream[F]) Begin(b kernels.Batch) {
	if s.err == nil {
		s.err = s.limits.Check(b)
	}
	s.batch = b
}

// Submit has nothing left to wait for.
func (s *stream[F]) Submit() (wait func() error) {
	err := s.err
	s.err = nil
	return func() error { return err }
}

func (s *stream[F]) Wait() error { return s.Submit()() }

func (s *stream[F]) Close() error { return nil }

// accepts reports whether the operation should run; if its shapes do not fit,
// the error sticks.
func (s *stream[F]) accepts(o kernels.Op) bool {
	if s.err == nil {
		s.err = o.Check(s.batch)
	}
	return s.err == nil
}

func (s *stream[F]) Write(dst kernels.Buffer, src []float32) {
	if s.err == nil {
		s.err = kernels.CheckCopy("write", s.batch, dst, src)
	}
	if s.err != nil {
		return
	}
	for i, v := range src {
		s.of(dst).at[i] = F(v)
	}
}

func (s *stream[F]) Read(dst []float32, src kernels.Buffer) {
	if s.err == nil {
		s.err = kernels.CheckCopy("read", s.batch, src, dst)
	}
	if s.err != nil {
		return
	}
	for i := range dst {
		dst[i] = float32(s.of(src).at[i])
	}
}

func (s *stream[F]) Embed(o kernels.Embed) {
	if !s.accepts(o) {
		return
	}
	b := s.batch
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
			out := s.of(o.Out).row(int(b.CuSeqlens[q]) + i)
			for c, v := range values(o.Table).row(int(id)) {
				out[c] = F(v) * scale
				if id == o.Mask {
					out[c] = 0
				}
				if o.Type != nil {
					out[c] += F(vector(o.Type)[c])
				}
			}
		}
	}
}

func (s *stream[F]) Linear(o kernels.Linear) {
	if !s.accepts(o) {
		return
	}
	width, _ := o.W.Dims()
	z := make([]F, width)
	for t := range s.batch.IDs {
		x, out := s.of(o.In).row(t), s.of(o.Out).row(t)
		for n := range z {
			z[n] = 0
			for k, w := range values(o.W).row(n) {
				z[n] += x[k] * F(w)
			}
			if o.Bias != nil {
				z[n] += F(vector(o.Bias)[n])
			}
			if o.Add != nil {
				z[n] += s.of(o.Add).row(t)[n]
			}
		}
		for c := range out {
			switch o.Then {
			case kernels.Identity:
				out[c] = z[c]
			case kernels.GELU:
				out[c] = gelu(z[c])
			case kernels.GEGLU:
				out[c] = gelu(z[c]) * z[len(out)+c]
			}
		}
	}
}

// gelu is x·Φ(x), written with erfc so that large negative x keep their
// relative accuracy.
func gelu[F float](x F) F { return x * F(0.5*math.Erfc(-float64(x)/math.Sqrt2)) }

func (s *stream[F]) Norm(o kernels.Norm) {
	if !s.accepts(o) {
		return
	}
	z := make([]F, o.In.Cols())
	for t := range s.batch.IDs {
		copy(z, s.of(o.In).row(t))
		if o.Add != nil {
			for c, v := range s.of(o.Add).row(t) {
				z[c] += v
			}
		}
		mean, variance := F(0), F(0)
		for _, v := range z {
			mean += v / F(len(z))
		}
		for _, v := range z {
			variance += (v - mean) * (v - mean) / F(len(z))
		}
		scale := 1 / F(math.Sqrt(float64(variance+F(o.Eps))))
		out := s.of(o.Out).row(t)
		for c, v := range z {
			out[c] = (v-mean)*scale*F(vector(o.Gain)[c]) + F(vector(o.Bias)[c])
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

func (s *stream[F]) Attention(o kernels.Attention) {
	if !s.accepts(o) {
		return
	}
	width := o.Out.Cols()
	d := width / o.Heads
	for q := range s.batch.Sequences() {
		first, n := int(s.batch.CuSeqlens[q]), s.batch.Len(q)
		qkv := slices.Clone(s.of(o.QKV).at[first*3*width : (first+n)*3*width])
		row := func(i, part, head int) []F { // part 0 query, 1 key, 2 value
			return qkv[(3*i+part)*width+head*d:][:d]
		}
		for i := 0; o.Rotary != nil && i < n; i++ {
			for h := range o.Heads {
				rotate(row(i, 0, h), o.Rotary, i, F(o.Rotary.QScale))
				rotate(row(i, 1, h), o.Rotary, i, 1)
			}
		}
		p := make([]F, n)
		for h := range o.Heads {
			for i := range n {
				top := F(math.Inf(-1))
				for j := range p {
					p[j] = 0
					for c, k := range row(j, 1, h) {
						p[j] += row(i, 0, h)[c] * k
					}
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
				out := s.of(o.Out).row(first + i)[h*d:][:d]
				clear(out)
				for j := range p {
					for c, v := range row(j, 2, h) {
						out[c] += p[j] / sum * v
					}
				}
			}
		}
	}
}

func (s *stream[F]) Pool(o kernels.Pool) {
	if !s.accepts(o) {
		return
	}
	for q := range s.batch.Sequences() {
		from, to := o.Range(s.batch.Len(q))
		out := s.of(o.Out).row(q)
		clear(out)
		for i := from; i < to; i++ {
			for c, v := range s.of(o.In).row(int(s.batch.CuSeqlens[q]) + i) {
				out[c] += v / F(to-from)
			}
		}
	}
}
