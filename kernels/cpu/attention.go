package cpu

import (
	"cmp"
	"math"

	"seqembed/kernels"
)

// blockQueries is the number of query rows whose scores one task computes at
// a time: with 1,000 keys they take 192 KB.
const blockQueries = 48

// attentionScratch is what a batch's attention shares between its tasks.
type attentionScratch struct {
	stale   bool         // the batch has changed since queries was made
	queries []queryBlock // the batch cut into blocks of query rows
	keys    []panels     // [sequences · heads], B = Kᵀ: cols = keys, inner = head size
	values  []panels     // [sequences · heads], B = V: cols = head size, inner = keys
	memory  []float32    // behind keys and values
}

// queryBlock is a block of query rows of one sequence.
type queryBlock struct{ sequence, first, rows int }

func (a *attentionScratch) cut(b kernels.Batch) {
	a.stale = false
	a.queries = a.queries[:0]
	for q := range b.Sequences() {
		for i := 0; i < b.Len(q); i += blockQueries {
			a.queries = append(a.queries, queryBlock{q, i, min(blockQueries, b.Len(q)-i)})
		}
	}
}

// lay gives every sequence and head its panels of keys and values in memory.
func (a *attentionScratch) lay(b kernels.Batch, heads, d int) {
	a.keys, a.values = a.keys[:0], a.values[:0]
	need := 0
	take := func(cols, inner int) panels {
		p := *newPanels(cols, inner)
		from := need
		need += p.size()
		if need <= len(a.memory) {
			p.at = a.memory[from:need]
		}
		return p
	}
	for q := range b.Sequences() {
		for range heads {
			a.keys = append(a.keys, take(b.Len(q), d))
			a.values = append(a.values, take(d, b.Len(q)))
		}
	}
	if need > len(a.memory) {
		a.memory = aligned(need)
		a.lay(b, heads, d)
	}
}

// attention gives what runs an attention, and rotates what it reads where the operation says so: in place, or in scratch,
// unless that is nil.
func (s *runner) attention(o kernels.Attention, out, qkv, scratch *matrix) func() {
	width := out.cols
	d := width / o.Heads
	rotate := func() {}
	if o.Rotary != nil {
		to := cmp.Or(scratch, qkv)
		rotate, qkv = s.rotate(o.Rotary, to, qkv), to
	}
	pack := func(_, task int) {
		sequence, head := task/o.Heads, task%o.Heads
		rows := qkv.at[int(s.batch.CuSeqlens[sequence])*qkv.cols : int(s.batch.CuSeqlens[sequence+1])*qkv.cols]
		s.variant.packKeys(&s.heads.keys[task], rows[width+head*d:], qkv.cols)
		s.variant.packValues(&s.heads.values[task], rows[2*width+head*d:], qkv.cols)
	}
	attend := func(worker, task int) {
		s.attend(&o, out, qkv, worker, s.heads.queries[task/o.Heads], task%o.Heads, d)
	}
	return func() {
		rotate()
		if s.heads.stale {
			s.heads.cut(s.batch)
		}
		s.heads.lay(s.batch, o.Heads, d)
		s.crew.run(s.batch.Sequences()*o.Heads, pack)
		s.crew.run(len(s.heads.queries)*o.Heads, attend)
	}
}

// packKeys fills the panels of Kᵀ from the keys, ld values apart.
func packKeys(p *panels, keys []float32, ld int) {
	for i := range p.count {
		p.fill(i, keys[i*panelCols*ld:], ld)
	}
}

// packValues fills the panels of V from the values, ld values apart.
func packValues(p *panels, values []float32, ld int) {
	for k := range p.blocks() {
		from, to := p.block(k)
		for i := range p.count {
			panel := p.panel(k, i)
			column := i * panelCols
			width := min(panelCols, p.cols-column)
			for j := from; j < to; j++ {
				row := panel[(j-from)*panelCols:][:panelCols]
				clear(row[copy(row, values[j*ld+column:][:width]):])
			}
		}
	}
}

// attend computes the output of one block of queries for one head.
func (s *runner) attend(o *kernels.Attention, out, qkv *matrix, worker int, block queryBlock, head, d int) {
	at := block.sequence*o.Heads + head
	keys, values := &s.heads.keys[at], &s.heads.values[at]
	n, ld := keys.cols, keys.count*panelCols
	own := &s.scratch[worker]
	if len(own.scores) < blockQueries*ld {
		own.scores = aligned(blockQueries * ld)
	}
	first := int(s.batch.CuSeqlens[block.sequence]) + block.first
	queries := qkv.at[first*qkv.cols+head*d:]
	scores := product{out: own.scores, ldout: ld, a: queries, lda: qkv.cols, b: keys}
	s.compute(worker, &scores, 0, block.rows, 0, keys.count)

	slope := float32(0)
	if o.Slopes != nil {
		slope = o.Slopes[head]
	}
	var inverse [blockQueries]float32
	for r := range block.rows {
		inverse[r] = 1 / s.softmax(own.scores[r*ld:][:ld], n, o.Scale, slope, block.first+r)
	}
	ldacc := values.count * panelCols
	sums := product{out: own.acc, ldout: ldacc, a: own.scores, lda: ld, b: values}
	s.compute(worker, &sums, 0, block.rows, 0, values.count)
	for r := range block.rows {
		row := out.row(first + r)[head*d:][:d]
		s.variant.scale(row, own.acc[r*ldacc:], inverse[r])
	}
}

// blockKeys is how many scores one call takes. The sums of the blocks are
// added in float64, so that long rows lose nothing.
const blockKeys = 512

// softmax turns the n scores of the query at position i into weights that are
// not yet divided by their sum, which it returns.
func (s *runner) softmax(scores []float32, n int, scale, slope float32, i int) float32 {
	top := float32(math.Inf(-1))
	for j := 0; j < n; j += blockKeys {
		top = max(top, s.variant.scoreTop(scores[j:], min(blockKeys, n-j), scale, slope, float32(i-j)))
	}
	sum := 0.0
	for j := 0; j < n; j += blockKeys {
		sum += float64(s.variant.scoreExp(scores[j:], min(blockKeys, n-j), scale, slope, float32(i-j), top))
	}
	return float32(sum)
}

// scoreTop is the portable one of a variant.
func scoreTop(row []float32, n int, scale, slope, position float32) float32 {
	top := float32(math.Inf(-1))
	for j, v := range row[:n] {
		d := position - float32(j)
		top = max(top, float32(v*scale)-float32(slope*max(d, -d)))
	}
	return top
}

// scoreExp is the portable one of a variant.
func scoreExp(row []float32, n int, scale, slope, position, top float32) float32 {
	sum := 0.0
	for j, v := range row[:n] {
		d := position - float32(j)
		e := exp(float32(v*scale) - float32(slope*max(d, -d)) - top)
		row[j] = e
		sum += float64(e)
	}
	return float32(sum)
}
