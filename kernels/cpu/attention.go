package cpu

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"seqembed/kernels"
)

// blockQueries is the largest number of query rows whose scores are computed at a time. It is so small that the scores
// for 1,000 keys, 192 KB, stay in the second-level cache.
const blockQueries = 48

// attentionScratch is the part of attention's workspace that is shared by all tasks.
type attentionScratch struct {
	stale   bool           // whether queries still describes the previous batch
	queries []queryRows    // the batch, divided into the query rows of tasks
	angles  []*rotaryTable // one for each set of rotary frequencies
	shapes  []attentionShape
	memory  []float32       // the memory of all workers' headScratch
	words   func(n int) int // returns how many words hold n operand values; a word is a float32 or two bfloat16 values
}

// attentionShape is the number of heads of an Attention in the program, and the number of columns of a head.
type attentionShape struct{ heads, d int }

// queryRows is a range of query rows of one sequence.
type queryRows struct{ sequence, first, rows int }

// taskBlocks is the largest number of blocks of queries in a task. With so many blocks, packing takes about 1% of the
// task's time.
const taskBlocks = 16

// divide divides the batch into the query rows of tasks. A task packs the keys and values of a whole sequence, so it
// computes up to taskBlocks blocks of its queries, as long as each worker has several tasks.
func (a *attentionScratch) divide(b kernels.Batch, workers int) {
	heads := a.shapes[0].heads
	for _, shape := range a.shapes {
		heads = min(heads, shape.heads)
	}
	most := min(taskBlocks, len(b.IDs)*heads/(workers*tasksPerWorker*blockQueries)+1)
	a.stale = false
	a.queries = a.queries[:0]
	for q := range b.Sequences() {
		blocks := (b.Len(q) + blockQueries - 1) / blockQueries
		tasks := (blocks + most - 1) / most
		rows := (blocks + tasks - 1) / tasks * blockQueries
		for i := 0; i < b.Len(q); i += rows {
			a.queries = append(a.queries, queryRows{q, i, min(rows, b.Len(q)-i)})
		}
	}
}

// headScratch is the workspace of one worker in attention.
type headScratch struct {
	keys, values panels    // Kᵀ with one column for each key, and V, of the head of the current task
	memory       []float32 // holds both panels
	scores       []float32 // blockQueries rows of scores
	queries      softmaxRows
}

// layOut assigns memory to the packed keys and values, whose layouts it receives.
func (h *headScratch) layOut(keys, values panels) {
	h.keys, h.values = keys, values
	h.keys.at = h.memory[:h.keys.size()]
	h.values.at = h.memory[h.keys.size():][:h.values.size()]
}

// panels returns the layouts of the packed keys and values of a head with n keys and d columns.
func (a *attentionScratch) panels(n, d int) (keys, values panels) {
	return *newPanels(n, a.words(d)), *newPanels(d, a.words(n))
}

// reserve grows the workspace of attention to the size that batch b needs, which depends on its longest sequence and on
// the number of workers. The error wraps kernels.ErrOutOfMemory if too little memory is free. Without this check, a
// system that overcommits memory would grant the memory and kill the process later.
func (a *attentionScratch) reserve(memory *arena, scratch []scratch, b kernels.Batch) (err error) {
	if len(a.shapes) == 0 {
		return nil
	}
	longest, packed := b.Longest(), 0
	for _, shape := range a.shapes {
		keys, values := a.panels(longest, shape.d)
		packed = max(packed, keys.size()+values.size())
	}
	each := packed + blockQueries*newPanels(longest, 1).size()
	if a.memory, err = memory.grow(a.memory, each*len(scratch)); err != nil {
		return fmt.Errorf("attention of %d tokens: %w", longest, err)
	}
	for i := range scratch {
		own := a.memory[i*each:][:each]
		scratch[i].head.memory, scratch[i].head.scores = own[:packed], own[packed:]
	}
	return nil
}

// maxHead is the largest number of columns of a head. The result of a block of queries must fit the accumulators of a
// product.
const maxHead = blockRows * blockPanels * panelCols / blockQueries

// checkHead returns an error if attention cannot compute heads of d columns.
func checkHead(d int, bf16 bool) error {
	switch {
	case d > maxHead:
		return fmt.Errorf("heads of %d columns, at most %d are possible: %w", d, maxHead, kernels.ErrUnsupported)
	case bf16 && d%2 > 0:
		return fmt.Errorf("heads of an odd size in bf16: %w", kernels.ErrUnsupported)
	}
	return nil
}

// attention returns a function that runs an Attention on the current batch. If the operation has a Rotary, the function
// first rotates the queries and keys. It writes them to scratch or, if scratch is nil, in place.
func (s *runner) attention(o kernels.Attention, out, qkv, scratch *matrix) func() {
	d := out.cols / o.Heads
	if shape := (attentionShape{o.Heads, d}); !slices.Contains(s.heads.shapes, shape) {
		s.heads.shapes = append(s.heads.shapes, shape)
	}
	rotate := func() {}
	if o.Rotary != nil {
		to := cmp.Or(scratch, qkv)
		rotate, qkv = s.rotate(o.Rotary, to, qkv), to
	}
	attend := func(worker, task int) {
		queries, head := s.heads.queries[task/o.Heads], task%o.Heads
		s.pack(&s.scratch[worker].head, qkv, out.cols, queries.sequence, head*d, d)
		for i := 0; i < queries.rows; i += blockQueries {
			block := queryRows{queries.sequence, queries.first + i, min(blockQueries, queries.rows-i)}
			s.attend(&o, out, qkv, worker, block, head, d)
		}
	}
	return func() {
		rotate()
		if s.heads.stale {
			s.heads.divide(s.batch, s.workers.size)
		}
		s.workers.run(len(s.heads.queries)*o.Heads, attend)
	}
}

// pack packs the keys and values of the d columns from column on of a sequence. width is the number of columns of all
// queries, keys and values each.
func (s *runner) pack(h *headScratch, qkv *matrix, width, sequence, column, d int) {
	words, ld := qkv.operand()
	rows := words[int(s.batch.CuSeqlens[sequence])*ld : int(s.batch.CuSeqlens[sequence+1])*ld]
	h.layOut(s.heads.panels(s.batch.Len(sequence), d))
	if s.bf16 {
		v := &s.variant.pairs
		s.variant.packKeys(&h.keys, rows[(width+column)/2:], ld)
		v.arrangePanels(&h.keys)
		v.packValues(&h.values, halves(rows)[2*width+column:], 2*ld, s.batch.Len(sequence))
		v.arrangePanels(&h.values)
		return
	}
	s.variant.packKeys(&h.keys, rows[width+column:], ld)
	s.variant.packValues(&h.values, rows[2*width+column:], ld)
}

// packKeys implements variant.packKeys in plain Go: it packs the keys, which have stride ld, as panels of the matrix
// Kᵀ.
func packKeys(p *panels, keys []float32, ld int) {
	for i := range p.count {
		p.fill(i, keys[i*panelCols*ld:], ld)
	}
}

// packValues implements variant.packValues in plain Go: it packs the values, which have stride ld, as panels of the
// matrix V.
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

// attend computes the output of one block of queries for one head, whose keys and values are packed.
func (s *runner) attend(o *kernels.Attention, out, qkv *matrix, worker int, block queryRows, head, d int) {
	own := &s.scratch[worker].head
	keys, values := &own.keys, &own.values
	n, ld := keys.cols, keys.count*panelCols
	first := int(s.batch.CuSeqlens[block.sequence]) + block.first
	queries, ldq := qkv.operand()
	scores := product{out: own.scores, ldout: ld, a: queries[first*ldq+head*keys.inner:], lda: ldq, b: keys}
	s.compute(worker, &scores, 0, block.rows, 0, keys.count)

	slope := float32(0)
	if o.Slopes != nil {
		slope = o.Slopes[head]
	}
	s.variant.softmax(own.scores, ld, n, o.Scale, slope, block.first, &own.queries, block.rows)
	inverse := own.queries.sums[:block.rows]
	for r, sum := range inverse {
		inverse[r] = 1 / sum
		if s.bf16 {
			row := own.scores[r*ld:][:ld]
			s.variant.pairs.narrow(halves(row)[:2*pairs(n)], row[:n])
		}
	}
	ldacc := values.count * panelCols
	acc := s.scratch[worker].acc
	sums := product{out: acc, ldout: ldacc, a: own.scores, lda: ld, b: values}
	s.compute(worker, &sums, 0, block.rows, 0, values.count)
	rows, ldrows := acc, ldacc
	if out.at != nil {
		ldrows = stride(out.cols)
		rows = out.at[first*ldrows+head*d:]
	}
	s.variant.scale(rows, ldrows, acc, ldacc, d, inverse)
	for r := range block.rows {
		s.variant.round(out, first+r, head*d, rows[r*ldrows:][:d])
	}
}

const (
	// blockKeys is the largest number of scores of a row that one call of scoreMax or scoreExp processes. softmax adds
	// the sums of the calls in float64, so that long rows lose no accuracy.
	blockKeys = 512
	// blockScores is the largest number of scores in a block of rows, 32 KB. For each block softmax computes first the
	// maxima and then the exponentials, while the scores are in the first-level cache. A longer row is a block of its
	// own.
	blockScores = 8192
)

// softmaxRows holds values of softmax, one for each row of scores.
type softmaxRows struct {
	maxima [blockQueries]float32
	sums   [blockQueries]float32 // of the weights
	part   [blockQueries]float32 // the maxima or sums of a block of keys
	totals [blockQueries]float64
}

// softmax replaces the n scores in each row of ld values by unnormalized weights, and sets q.sums to the sum of the
// weights of each row. Row 0 belongs to the query at position i, row 1 to the next query, and so on. There are at most
// blockQueries rows.
func (v *variant) softmax(scores []float32, ld, n int, scale, slope float32, i int, q *softmaxRows, rows int) {
	step := max(1, blockScores/ld)
	for r := 0; r < rows; r += step {
		count := min(step, rows-r)
		block := scores[r*ld:]
		maxima, part, totals := q.maxima[:count], q.part[:count], q.totals[:count]
		for j := 0; j < n; j += blockKeys {
			v.scoreMax(block[j:], ld, min(blockKeys, n-j), scale, slope, float32(i+r-j), part)
			for k, m := range part {
				if j > 0 {
					m = max(maxima[k], m)
				}
				maxima[k] = m
			}
		}
		clear(totals)
		for j := 0; j < n; j += blockKeys {
			v.scoreExp(block[j:], ld, min(blockKeys, n-j), scale, slope, float32(i+r-j), maxima, part)
			for k, sum := range part {
				totals[k] += float64(sum)
			}
		}
		for k, total := range totals {
			q.sums[r+k] = float32(total)
		}
	}
}

// scoreMax implements variant.scoreMax in plain Go.
func scoreMax(rows []float32, ld, n int, scale, slope, position float32, maxima []float32) {
	for r := range maxima {
		maximum := float32(math.Inf(-1))
		for j, v := range rows[r*ld:][:n] {
			d := position + float32(r-j)
			maximum = max(maximum, float32(v*scale)-float32(slope*max(d, -d)))
		}
		maxima[r] = maximum
	}
}

// scoreExp implements variant.scoreExp in plain Go.
func scoreExp(rows []float32, ld, n int, scale, slope, position float32, maxima, sums []float32) {
	for r, maximum := range maxima {
		row := rows[r*ld:][:n]
		sum := 0.0
		for j, v := range row {
			d := position + float32(r-j)
			e := exp(float32(v*scale) - float32(slope*max(d, -d)) - maximum)
			row[j] = e
			sum += float64(e)
		}
		sums[r] = float32(sum)
	}
}
