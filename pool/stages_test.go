package pool

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"seqembed/kernels"
	"seqembed/tokenizer"
)

// slowTokenizer takes a second for each record.
type slowTokenizer struct{ tokenizer.Tokenizer }

func (s slowTokenizer) Append(ids []int32, letters []byte) ([]int32, int) {
	time.Sleep(time.Second)
	return s.Tokenizer.Append(ids, letters)
}

// TestTimesOfStages checks the times for which reading, computing and writing were busy and waited, as the Observer
// receives them. One run has a slow device, and one has slow reading. Each of the 20 records is a batch and a span, the
// unit that is read and written at once.
func TestTimesOfStages(t *testing.T) {
	const n = 20
	second := func(n int) time.Duration { return time.Duration(n) * time.Second }
	run := func(t *testing.T, change func(*bench)) (r *recorder, computing, waited time.Duration) {
		b := newBench(t)
		b.fake.budget = 10
		b.add("a.faa", fasta(randomRecords(1, slices.Repeat([]int{40}, n)...)))
		change(b)
		b.run()
		for _, batch := range b.seen.batches {
			computing, waited = computing+batch.Took, waited+batch.Waited
			if batch.Budget != 10 {
				t.Errorf("a budget of %d", batch.Budget)
			}
		}
		return b.seen, computing, waited
	}
	synctest.Test(t, func(t *testing.T) {
		r, computing, waited := run(t, func(b *bench) {
			b.fake.fault = func(kernels.Batch) error { time.Sleep(time.Second); return nil }
		})
		// The reader reads the first five spans at once, and then waits for a span to be written before it reads the
		// next. The writer waits until the last span has been computed.
		if computing != second(n) || waited != 0 || r.reading.busy != 0 || r.reading.waited != second(n-5) || r.writing.waited != second(n) || r.writing.busy != 0 {
			t.Errorf("slow device: computing %v and %v, reading %v, writing %v", computing, waited, r.reading, r.writing)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		r, computing, waited := run(t, func(b *bench) { b.job.Tokenizer = slowTokenizer{b.job.Tokenizer} })
		if computing != 0 || waited == 0 || r.reading.waited != 0 || r.reading.busy < second(n) || r.writing.waited != r.reading.busy {
			t.Errorf("slow reading: computing %v and %v, reading %v, writing %v", computing, waited, r.reading, r.writing)
		}
	})
}
