package cpu

import (
	"math"

	"seqembed/kernels"
)

// Each method of runner in this file returns a function that runs one operation on the current batch.

func (s *runner) embed(o kernels.Embed, out *matrix) func() {
	table := o.Table.(*weight)
	return s.eachSequence(func(worker, q int) {
		first := int(s.batch.CuSeqlens[q])
		ids := s.batch.IDs[first:s.batch.CuSeqlens[q+1]]
		scale := s.scratch[worker].factor[:]
		scale[0] = embedScale(o, ids)
		for i, id := range ids {
			row := s.scratch[worker].float32Row(out, first+i)
			if id == o.Mask {
				clear(row)
			} else {
				s.variant.scale(row, 0, table.flat[int(id)*table.cols:], 0, len(row), scale)
			}
			if o.Type != nil {
				s.variant.add(row, o.Type.(*weight).flat)
			}
			s.variant.round(out, first+i, 0, row)
		}
	})
}

// embedScale returns the factor for the embeddings of one sequence. The factor is Scale or, if token dropout is on,
// Scale divided by the share of tokens that are not masked.
func embedScale(o kernels.Embed, ids []int32) float32 {
	masked := 0
	for _, id := range ids {
		if id == o.Mask {
			masked++
		}
	}
	return o.Scale / (1 - float32(masked)/float32(len(ids)))
}

// norm works in place if the matrices out and in have the same memory.
func (s *runner) norm(o kernels.Norm, out, in *matrix) func() {
	gain, bias := o.Gain.(*weight).flat, o.Bias.(*weight).flat
	apart := out.at == nil || &out.at[0] != &in.at[0]
	return s.eachRow(func(worker, t int) {
		row := s.scratch[worker].float32Row(out, t)
		if apart {
			copy(row, in.row(t))
		}
		s.variant.normalize(row, gain, bias, o.Eps)
		s.variant.round(out, t, 0, row)
	})
}

// normalize applies a LayerNorm to one row in place, with statistics in float64.
func normalize(row, gain, bias []float32, eps float32) {
	sum := 0.0
	for _, v := range row {
		sum += float64(v)
	}
	mean := sum / float64(len(row))
	squares := 0.0
	for _, v := range row {
		d := float64(v) - mean
		squares += d * d
	}
	scale := 1 / math.Sqrt(squares/float64(len(row))+float64(eps))
	gain, bias = gain[:len(row)], bias[:len(row)]
	for c, v := range row {
		row[c] = float32((float64(v)-mean)*scale)*gain[c] + bias[c]
	}
}

func (s *runner) pool(o kernels.Range, out, in *matrix) func() {
	return s.eachSequence(func(_, q int) {
		from, to := o.Of(s.batch.Len(q))
		first := int(s.batch.CuSeqlens[q])
		poolColumns(out.row(q), in, first+from, first+to)
	})
}

// poolColumns sets dst to the column means of the rows [from, to) of m. It sums in float64, 64 columns at a time so
// that the sums stay in the first-level cache.
func poolColumns(dst []float32, m *matrix, from, to int) {
	const width = 64
	for c := 0; c < len(dst); c += width {
		var sums [width]float64
		part := dst[c:min(c+width, len(dst))]
		for r := from; r < to; r++ {
			for i, v := range m.row(r)[c:][:len(part)] {
				sums[i] += float64(v)
			}
		}
		for i := range part {
			part[i] = float32(sums[i] / float64(to-from))
		}
	}
}
