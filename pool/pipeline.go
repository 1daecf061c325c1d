package pool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"seqembed/internal/seqio"
	"seqembed/internal/store"
	"seqembed/kernels"
)

// ErrTooLong is in the chain of the error of a record over --max-length.
var ErrTooLong = errors.New("record too long")

// errLost would be a bug: a record that was neither written nor skipped.
var errLost = errors.New("records were lost")

const (
	// lookAhead is how many batches of tokens are read before they are sorted
	// by length: enough that batches are of one length, and little memory.
	lookAhead = 4
	// extremeTokens is the length from which a record is announced.
	extremeTokens = 50_000
)

// reasonMemory is why a record that fits no device is left out.
const reasonMemory = "out of memory"

// embed reads, computes and writes one file. Three goroutines share the work:
// one reads and tokenizes, this one computes, one writes. Each hands over
// whole spans of records through a channel of capacity 1, so at most five
// spans exist at a time. All have ended when embed returns.
func (r *run) embed(ctx context.Context, d Device, e Embedder, f File) (FileReport, error) {
	report := FileReport{Path: f.Path, Device: d.Name, Skipped: map[string]int64{}, Started: time.Now()}
	reader, err := f.open(r.Reading)
	if err != nil {
		return report, err
	}
	defer reader.Close()
	out, err := store.Create(r.Output.spec(f))
	if err != nil {
		return report, &outputError{err}
	}
	defer out.Abort()
	r.Observer.FileStarted(f.Path, d.Name)

	// A stage that fails cancels work, so that no other waits for it.
	work, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	tokenized := make(chan span, 1)
	embedded := make(chan span, 1)
	written := make(chan struct{})
	go func() {
		defer close(tokenized)
		if err := r.read(work, reader, f, tokenized); err != nil {
			cancel(err)
		}
	}()
	go func() {
		defer close(written)
		for s := range embedded {
			if work.Err() != nil {
				continue
			}
			if err := r.write(out, s.records, &report); err != nil {
				cancel(err)
			}
		}
	}()
	for s := range tokenized {
		if work.Err() != nil {
			continue // drains the channel until its reader has seen it too
		}
		if err := r.compute(work, d, e, f.Path, s); err != nil {
			cancel(err)
			continue
		}
		send(work, embedded, s)
	}
	close(embedded)
	<-written

	if ctx.Err() != nil {
		return report, ErrInterrupted
	}
	if work.Err() != nil {
		return report, context.Cause(work)
	}
	return report, r.commit(reader, out, f, d, &report)
}

// span is a stretch of the file: what is packed into batches together.
type span struct {
	records []*record
	tokens  int
	bytes   int64 // of the file as it is on disk
}

// send hands a span to the next stage unless work has ended.
func send(work context.Context, to chan<- span, s span) bool {
	select {
	case to <- s:
		return true
	case <-work.Done():
		return false
	}
}

// read tokenizes the file's records, a span of lookAhead batches at a time.
func (r *run) read(work context.Context, reader *seqio.Reader, f File, to chan<- span) error {
	capacity := lookAhead * r.Budget
	if r.PerToken {
		capacity = r.Budget // whole hidden states wait to be written
	}
	var s span
	var position int64
	next := func() bool {
		s.bytes, position = reader.Position()-position, reader.Position()
		ok := send(work, to, s)
		s = span{}
		return ok
	}
	for {
		rec, err := reader.Read()
		if errors.Is(err, io.EOF) {
			next()
			return nil
		}
		if err != nil {
			return err
		}
		tokenized, err := r.newRecord(f.Path, rec)
		if err != nil {
			return err
		}
		if n := tokenized.windows[0].tokens(); n > extremeTokens {
			r.Observer.LongRecord(f.Path, rec.ID, n)
		}
		if s.tokens > 0 && s.tokens+tokenized.row.Tokens > capacity && !next() {
			return nil
		}
		s.records, s.tokens = append(s.records, tokenized), s.tokens+tokenized.row.Tokens
	}
}

func (w window) tokens() int { return len(w.ids) }

// compute embeds the windows of a span's records, batch by batch. A batch that the
// device has no memory for is cut in half, down to single windows; a window
// that does not fit alone is that record's failure.
func (r *run) compute(work context.Context, d Device, e Embedder, path string, s span) error {
	type place struct {
		rec    *record
		window int
	}
	var places []place
	var lengths []int
	for _, rec := range s.records {
		for i, w := range rec.windows {
			places = append(places, place{rec, i})
			lengths = append(lengths, w.tokens())
		}
	}
	queue := pack(lengths, r.Budget)
	var batch kernels.Batch
	for len(queue) > 0 {
		if work.Err() != nil {
			return nil
		}
		members := queue[0]
		queue = queue[1:]
		batch.Reset()
		for _, m := range members {
			batch.Append(places[m].rec.windows[places[m].window].ids)
		}
		began := time.Now()
		results, err := e.Encode(batch)
		switch {
		case errors.Is(err, kernels.ErrOutOfMemory) && len(members) > 1:
			half := len(members) / 2
			queue = slices.Concat([][]int{members[:half], members[half:]}, queue)
			r.Observer.Halved(d.Name, len(batch.IDs), err)
			continue
		case errors.Is(err, kernels.ErrOutOfMemory):
			rec := places[members[0]].rec
			rec.failure = err
			continue
		case err != nil:
			return &DeviceError{d.Name, err}
		}
		r.Observer.BatchDone(Batch{Device: d.Name, Path: path, Sequences: len(members), Tokens: len(batch.IDs),
			Bytes: s.bytes * int64(len(batch.IDs)) / int64(s.tokens), Took: time.Since(began)})
		for i, m := range members {
			w := &places[m].rec.windows[places[m].window]
			for _, layer := range results {
				from, to := i, i+1
				if r.PerToken {
					from, to = int(batch.CuSeqlens[i]), int(batch.CuSeqlens[i+1])
				}
				w.result = append(w.result, layer[from*r.Output.Dim:to*r.Output.Dim])
			}
		}
	}
	for _, rec := range s.records {
		if rec.failure == nil {
			rec.join(r.PerToken, e.Averaged)
		}
		rec.windows = nil
	}
	return nil
}

// write stores the records, which come in the order of the input, and counts
// them.
func (r *run) write(out store.Writer, records []*record, report *FileReport) error {
	for _, rec := range records {
		if rec.failure != nil {
			report.Skipped[reasonMemory]++
			r.Observer.RecordSkipped(report.Path, rec.row.ID, rec.line, rec.failure)
			continue
		}
		if err := out.Write(rec.row); err != nil {
			return &outputError{err}
		}
		report.count(rec)
	}
	return nil
}

// commit checks that nothing was lost, puts the output under its name and
// describes it in the manifest.
func (r *run) commit(reader *seqio.Reader, out store.Writer, f File, d Device, report *FileReport) error {
	skipped := report.Skipped[reasonMemory]
	for reason, n := range reader.SkipCounts() {
		report.Skipped[reason] += n
		skipped += n
	}
	report.Examples = reader.Skipped()
	if reader.Records() != report.Records+skipped {
		return fmt.Errorf("%s: %d records in, %d rows out, %d skipped: %w", f.Path, reader.Records(), report.Records, skipped, errLost)
	}
	sum, size, err := reader.Digest()
	if err != nil {
		return err
	}
	if report.Outputs, err = out.Commit(); err != nil {
		return &outputError{err}
	}
	report.Finished = time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	entry := r.Output.Template
	entry.Input = store.Source{Path: f.Path, Size: size, SHA256: sum}
	entry.Device = d.Name
	entry.Records, entry.Tokens, entry.Truncated = report.Records, report.Tokens, report.Truncated
	entry.Skipped = report.Skipped
	entry.Outputs, entry.Started, entry.Finished = report.Outputs, report.Started, report.Finished
	r.manifest.Put(entry)
	if err := r.manifest.Write(r.Output.Dir); err != nil {
		return &outputError{err}
	}
	return nil
}
