package pool

import (
	"time"

	"seqembed/kernels"
)

// LongTokens is the number of tokens above which a record, or a window of it, is reported to the Observer before it is
// computed, because the computation may take long.
const LongTokens = 50_000

// LongRecord is a record, or a window of it, of more than LongTokens.
type LongRecord struct {
	Path, ID string
	Tokens   int
	// TrialTook is the time that the device has just taken for the first TrialTokens tokens of the sequence. Both are 0
	// if the device has started batches before, or if the trial fails.
	TrialTokens int
	TrialTook   time.Duration
}

// trialTokens is the maximum number of tokens in a trial, in which a device computes the beginning of a long sequence
// to find the rate of the device. A trial of this size takes a small part of the time of the whole sequence.
const trialTokens = 2048

// announce is called before a batch is started. It reports the first sequence of the batch to the Observer if the
// sequence has more than LongTokens. If the device has computed nothing yet, announce first computes the beginning of
// the sequence, so that the Observer learns the rate of the device.
func (w *worker) announce(b batch) {
	m := b.members[0]
	if m.tokens() <= LongTokens {
		return
	}
	long := LongRecord{Path: b.span.file.Path, ID: m.first, Tokens: m.tokens()}
	if w.finished.IsZero() && len(w.inFlight) == 0 {
		var trial kernels.Batch
		trial.Append(m.ids[:min(trialTokens, w.budget, m.tokens())])
		started := time.Now()
		if _, err := w.embedder.Start(trial)(); err == nil { // an error will occur again with the sequence itself
			long.TrialTokens, long.TrialTook = len(trial.IDs), time.Since(started)
		}
	}
	w.Observer.LongRecord(long)
}
