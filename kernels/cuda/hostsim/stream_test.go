package hostsim_test

import (
	"fmt"
	"math"

	"seqembed/kernels"
)

// stream launches one kernel an operation, at once.
type stream struct {
	b      *backend
	limits kernels.Limits
	batch  kernels.Batch
	err    error
	memory []uint64 // of the stream

	ids, cu, pos, seq uint64
	ofBatch           []uint64 // memory of the batch
}

func (s *stream) alloc(bytes int) uint64 {
	at := s.b.alloc(bytes)
	s.memory = append(s.memory, at)
	return at
}

func (s *stream) Tokens(cols int, k kernels.Kind) kernels.Buffer {
	f := &buffer{cols: cols, kind: k}
	values := s.limits.Tokens * pitch(cols)
	if k&kernels.Residual != 0 || s.b.operand.size == 4 {
		f.out32 = s.alloc(4 * values)
	}
	if k&kernels.Operand != 0 && s.b.operand.size == 2 {
		f.out = s.alloc(2 * values)
	}
	return f
}

func (s *stream) Sequences(cols int) kernels.Buffer {
	return &buffer{cols: cols, kind: kernels.Residual, perSequence: true, out32: s.alloc(4 * s.limits.Sequences * pitch(cols))}
}

func (s *stream) Reuse(b kernels.Buffer, cols int) kernels.Buffer {
	f := *b.(*buffer)
	f.cols = cols
	return &f
}

func (s *stream) free(list []uint64) {
	for _, at := range list {
		if err := s.b.dev.Free(at); err != nil && s.err == nil {
			s.err = err
		}
	}
}

func (s *stream) Begin(b kernels.Batch) {
	if s.err == nil {
		s.err = s.limits.Check(b)
	}
	s.batch = b
	if s.err != nil {
		return
	}
	s.free(s.ofBatch)
	s.ids, s.cu = s.b.ints(b.IDs), s.b.ints(b.CuSeqlens)
	s.pos, s.seq = s.b.alloc(4*len(b.IDs)), s.b.alloc(4*len(b.IDs))
	s.ofBatch = []uint64{s.ids, s.cu, s.pos, s.seq}
	s.launch("positions", [3]int{b.Sequences(), 1, 1}, 128, 0, s.pos, s.seq, s.cu)
}

func (s *stream) Submit() (wait func() error) {
	err := s.Wait()
	return func() error { return err }
}

func (s *stream) Wait() error {
	err := s.err
	s.err = nil
	return err
}

func (s *stream) Close() error {
	s.free(s.ofBatch)
	s.free(s.memory)
	return nil
}

func (s *stream) launch(kernel string, grid [3]int, threads, shared int, params ...any) {
	if s.err == nil {
		s.err = s.b.dev.Launch(kernel, grid, threads, shared, params...)
	}
}

func (s *stream) accepts(o kernels.Op) bool {
	if s.err == nil {
		s.err = o.Check(s.batch)
	}
	return s.err == nil
}

func (s *stream) rows() int { return len(s.batch.IDs) }

func (s *stream) typed(kernel string) string { return kernel + "_" + s.b.operand.suffix }

func (s *stream) Write(dst kernels.Buffer, src []float32) {
	if s.err == nil {
		s.err = kernels.CheckCopy("write", s.batch, dst, src)
	}
	if s.err != nil {
		return
	}
	f := dst.(*buffer)
	if f.out32 != 0 {
		s.b.upload(f.out32, src, f.cols, fp32)
	}
	if f.out != 0 {
		s.b.upload(f.out, src, f.cols, s.b.operand)
	}
}

func (s *stream) Read(dst []float32, src kernels.Buffer) {
	if s.err == nil {
		s.err = kernels.CheckCopy("read", s.batch, src, dst)
	}
	if s.err != nil {
		return
	}
	f := src.(*buffer)
	if f.out32 != 0 {
		s.err = s.b.download(dst, f.out32, f.cols, fp32)
	} else {
		s.err = s.b.download(dst, f.out, f.cols, s.b.operand)
	}
}

func at(w kernels.Weight) uint64 {
	if w == nil {
		return 0
	}
	return w.(*weight).at
}

func residual(b kernels.Buffer) uint64 {
	if b == nil {
		return 0
	}
	return b.(*buffer).out32
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }

func (s *stream) Embed(o kernels.Embed) {
	if !s.accepts(o) {
		return
	}
	scale := s.b.alloc(4 * s.batch.Sequences())
	s.launch("embed_scale", [3]int{s.batch.Sequences(), 1, 1}, 32, 0, scale, s.ids, s.cu, o.Scale, o.Mask)
	out := o.Out.(*buffer)
	s.launch(s.typed("embed"), [3]int{s.rows(), 1, 1}, 128, 0, out.out32, out.out, at(o.Table), s.ids, s.seq, scale,
		at(o.Type), o.Mask, int32(s.rows()), int32(out.cols))
	s.free([]uint64{scale})
}

func (s *stream) Norm(o kernels.Norm) {
	if !s.accepts(o) {
		return
	}
	out := o.Out.(*buffer)
	kernel, grid, threads := "layernorm_warp", ceilDiv(s.rows(), 4), 128
	if out.cols > 1280 {
		kernel, grid, threads = "layernorm_block", s.rows(), 256
	}
	s.launch(s.typed(kernel), [3]int{grid, 1, 1}, threads, 0, out.out32, out.out, residual(o.In), residual(o.Add),
		at(o.Gain), at(o.Bias), o.Eps, int32(s.rows()), int32(out.cols))
}

func (s *stream) Linear(o kernels.Linear) { s.linear("gemm", o) }

// linear runs a product whose epilogue kernel says: the weight of a
// gemm_geglu has twice the columns of the output.
func (s *stream) linear(kernel string, o kernels.Linear) {
	if kernel == "gemm" && !s.accepts(o) {
		return
	}
	out, k := o.Out.(*buffer), o.In.Cols()
	tile, threads, shared := 128, 128, 65536
	if s.b.operand.size == 4 {
		tile, threads, shared = 64, 256, 30720
	}
	if kernel == "gemm_geglu" {
		tile /= 2
	}
	blocks := ceilDiv(s.rows(), 128) * ceilDiv(out.cols, tile)
	s.launch(s.typed(kernel), [3]int{blocks, 1, 1}, threads, shared, o.In.(*buffer).as(), at(o.W), at(o.Bias),
		residual(o.Add), out.out32, out.out, int32(s.rows()), int32(out.cols), int32(k))
}

func (s *stream) Rotary(o kernels.Rotary) {
	if !s.accepts(o) {
		return
	}
	table := s.turns(o)
	s.launch(s.typed("rotary"), [3]int{s.rows(), 1, 1}, 128, 0, o.QKV.(*buffer).as(), s.pos, table, int32(o.Heads),
		int32(2*len(o.InvFreq)), o.QScale, int32(s.rows()))
	s.free([]uint64{table})
}

// turns sends the rotations of the positions that the batch has, and no more.
func (s *stream) turns(o kernels.Rotary) uint64 {
	longest := 0
	for q := range s.batch.Sequences() {
		longest = max(longest, s.batch.Len(q))
	}
	var turns []float32
	for i := range longest {
		for _, f := range o.InvFreq {
			sin, cos := math.Sincos(float64(float32(i) * f))
			turns = append(turns, float32(cos), float32(sin))
		}
	}
	return s.b.floats(turns)
}

func (s *stream) Attention(o kernels.Attention) { s.attention("attention", o) }

// turned launches the attention that rotates what it reads.
func (s *stream) turned(r kernels.Rotary, o kernels.Attention) {
	if !s.accepts(r) {
		return
	}
	table := s.turns(r)
	s.attention("attention_rotary", o, table, r.QScale)
	s.free([]uint64{table})
}

func (s *stream) attention(kernel string, o kernels.Attention, more ...any) {
	if !s.accepts(o) {
		return
	}
	d := o.Out.Cols() / o.Heads
	rows, threads, shared := 128, 128, 512*((d+15)/16*16+8)
	if d == 128 {
		threads = 256
	}
	if s.b.operand.size == 4 {
		rows, threads, shared = 64, 256, 4*(128*(d+4)+64*36)
	}
	var list []int32
	for q := range s.batch.Sequences() {
		for first := 0; first < s.batch.Len(q); first += rows {
			list = append(list, int32(q), int32(first))
		}
	}
	blocks, slopes := s.b.ints(list), uint64(0)
	used := []uint64{blocks}
	if o.Slopes != nil {
		slopes = s.b.floats(o.Slopes)
		used = append(used, slopes)
	}
	params := []any{o.Out.(*buffer).as(), o.QKV.(*buffer).as(), s.cu, blocks, int32(o.Heads), o.Scale, slopes}
	s.launch(s.typed(fmt.Sprintf("%s_%d", kernel, d)), [3]int{len(list) / 2, o.Heads, 1}, threads, shared, append(params, more...)...)
	s.free(used)
}

func (s *stream) Activate(o kernels.Activate) {
	if !s.accepts(o) {
		return
	}
	cols := o.X.Cols()
	s.launch(s.typed("activate"), [3]int{ceilDiv(pitch(cols), 1024), ceilDiv(s.rows(), 2), 1}, 128, 0, o.X.(*buffer).as(), uint64(0),
		int32(s.rows()), int32(cols))
}

func (s *stream) Gate(o kernels.Gate) {
	if !s.accepts(o) {
		return
	}
	cols := o.Out.Cols()
	s.launch(s.typed("gate"), [3]int{ceilDiv(pitch(cols), 1024), ceilDiv(s.rows(), 2), 1}, 128, 0, o.Out.(*buffer).as(),
		o.In.(*buffer).as(), int32(s.rows()), int32(cols))
}

func (s *stream) Pool(o kernels.Pool) {
	if !s.accepts(o) {
		return
	}
	var ranges []int32
	for q := range s.batch.Sequences() {
		from, to := o.Range(s.batch.Len(q))
		ranges = append(ranges, s.batch.CuSeqlens[q]+int32(from), s.batch.CuSeqlens[q]+int32(to))
	}
	list, cols, n := s.b.ints(ranges), o.Out.Cols(), s.batch.Sequences()
	s.launch("pool", [3]int{ceilDiv(cols, 32), n, 1}, 256, 0, residual(o.Out), residual(o.In), list, int32(cols), int32(n))
	s.free([]uint64{list})
}
