package pool

import (
	"time"

	"seqembed/kernels"
)

// LongTokens is the number of tokens above which a record, or a window of it, is reported to the Observer before it is
// computed.
const LongTokens = 50_000

// LongRecord is a record, or a window of it, of more than LongTokens.
type LongRecord struct {
	Path, ID string
	Tokens   int
	// TrialTook is the time that the device has just taken for a sequence of TrialTokens. Both are 0 if the device has
	// computed batches before.
	TrialTokens int
	TrialTook   time.Duration
}

// trialTokens is the number of tokens in a trial: the beginning of a long sequence, which a device computes to find its
// rate. These are few enough to take a small part of the time of the whole sequence.
const trialTokens = 2048

// announce reports the first sequence of a batch to the Observer if it has more than LongTokens, before the batch is
// started. If the device has computed nothing yet, it first computes the beginning of the sequence, so that the
// observer knows a rate.
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
		if _, err := w.embedder.Start(trial)(); err == nil { // the sequence itself will cause the same error
			long.TrialTokens, long.TrialTook = len(trial.IDs), time.Since(started)
		}
	}
	w.Observer.LongRecord(long)
}
