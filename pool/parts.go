package pool

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"seqembed/internal/seqio"
	"seqembed/internal/store"
	"seqembed/kernels"
)

// DefaultPartRecords is the default of the command line for Job.PartRecords.
const DefaultPartRecords = 4096

// A part is the results that are appended to the log of a file together (see the type parts). It ends when it reaches
// partBytes or partTime, or after half of Job.PartRecords records.
const (
	partBytes = 8 << 20          // size of the results in bytes
	partTime  = 5 * time.Second  // time since the last part ended
	syncTime  = 10 * time.Second // minimum time between two syncs of the log to the disk
)

// parts keeps the results of one input file in a log (see store.Parts). If the run is interrupted or killed, a rerun
// takes these results from the log and computes only the missing ones. The writer collects results and appends them to
// the log together, as a part. A part ends at the latest after half of Job.PartRecords records; the other half allows
// for records that have been read but not written. A file whose writer finishes before its first part ends has no log.
//
// The log contains the results of sequences in the order in which the records of the file need them. A result depends
// only on the tokens of the sequence and on the settings of the log. So a rerun reads and tokenizes the whole input
// again. If a sequence is the next one in the log, the rerun takes its result from the log.
type parts struct {
	file *fileJob
	log  *store.Parts // nil if no log is used; the writer sets it to nil only after the replay of the log

	// State of the replay, in which the reader takes the results of an earlier run from the log.
	replaying bool
	replayed  int64 // number of records for which the log had all results

	// Used by the writer.
	pending       []*sequence // computed sequences that are not in the log yet, in the order of the file
	records       int         // number of records with pending sequences
	bytes         int         // size in bytes of the results of the pending sequences
	ended, synced time.Time   // when the last part ended, and when the log was last synced to the disk
	unsynced      bool        // whether the log has a part that is not synced
}

// partSettings describes everything on which the result of a sequence depends, besides its tokens.
type partSettings struct {
	Version    int            `json:"parts_version"`
	Model      string         `json:"model"`
	Revision   string         `json:"revision"`
	Checkpoint string         `json:"checkpoint_sha256"`
	DType      string         `json:"dtype"`
	Backend    string         `json:"backend"`
	Numerics   int            `json:"numerics_version"`
	Dim        int            `json:"dim"`
	Columns    []store.Column `json:"columns"`
	// OnBad decides whether a sequence may have no result.
	OnBad seqio.Policy `json:"on_bad_record"`
}

// openParts opens the part log of a file. There is no log for an input that can be read only once, or if
// Job.PartRecords is 0.
func (f *fileJob) openParts() *parts {
	now := time.Now()
	p := &parts{file: f, ended: now, synced: now}
	if f.PartRecords == 0 || f.once() {
		return p
	}
	t := f.Output.Template
	settings, err := json.Marshal(partSettings{1, t.Model, t.Revision, t.CheckpointSHA256, t.DType, t.Backend, t.NumericsVersion,
		f.Output.Dim, f.Output.Columns, f.Reading.OnBad})
	if err == nil {
		p.log, err = store.OpenParts(f.Output.Main(f.File), settings)
	}
	p.dropped(err)
	p.replaying = p.log != nil && p.log.Exists()
	return p
}

// dropped tells the Observer that the log of the file is not used, or not to its end, because of err. It does nothing
// if err is nil. It does not report a log that another run is using, because that run is making the same output.
func (p *parts) dropped(err error) {
	if err != nil && !errors.Is(err, store.ErrLocked) {
		p.file.Observer.PartsDropped(p.file.Path, err)
	}
}

// key returns the key of a sequence in a part log: a digest of its tokens.
func (s *sequence) key() store.PartKey {
	sum := sha256.Sum256(s.appendIDs(make([]byte, 0, 4*len(s.ids))))
	return store.PartKey(sum[:])
}

// sizes returns the number of values of a sequence in each column.
func (j *Job) sizes(s *sequence) []int {
	list := make([]int, len(j.Output.Columns))
	for i, c := range j.Output.Columns {
		from, to := 0, 1
		if !c.Pooling.PerRecord() {
			from, to = j.Covered(c.Pooling, s.tokens())
		}
		list[i] = (to - from) * j.Output.Dim
	}
	return list
}

// restore reads the results of the sequences of rec, the next record, from the log. At the end of the log, or at the
// first entry that is damaged or of another sequence, it ends the replay of the log.
func (p *parts) restore(rec *record) {
	for _, w := range rec.windows {
		if !p.replaying || w.repeated {
			continue
		}
		values, err := p.log.Next(w.seq.key(), p.file.sizes(w.seq)...)
		if err != nil {
			p.endReplay()
			if err != io.EOF {
				p.dropped(fmt.Errorf("from record %q (line %d) on: %w", rec.row.ID, rec.line, err))
			}
			return
		}
		if w.seq.stored, w.seq.result = true, values; values == nil {
			w.seq.failure = fmt.Errorf("it was left out by the run that this one continues: %w", kernels.ErrOutOfMemory)
		}
	}
	if p.replaying {
		p.replayed++
	}
}

// endReplay ends the replay of the log. It reports to the Observer the number of records that need not be computed
// again.
func (p *parts) endReplay() {
	if p.replaying && p.replayed > 0 {
		p.file.Observer.FileContinued(p.file.Path, p.replayed)
	}
	p.replaying = false
}

// keep adds the results of a written or skipped record to the current part, and ends the part if it has reached a
// limit.
func (p *parts) keep(rec *record) {
	if p.log == nil {
		return
	}
	before := len(p.pending)
	for _, w := range rec.windows {
		if w.repeated || w.seq.stored {
			continue
		}
		p.pending = append(p.pending, w.seq)
		for _, values := range w.seq.result {
			p.bytes += 4 * len(values)
		}
	}
	if len(p.pending) > before {
		p.records++
	}
	if 2*p.records >= p.file.PartRecords || p.bytes >= partBytes || time.Since(p.ended) >= partTime {
		p.endPart()
	}
}

// due returns a channel that receives a value when endPart must be called, which is partTime after the last part ended.
// It returns nil if there is nothing to write or to sync.
func (p *parts) due() <-chan time.Time {
	if len(p.pending) == 0 && !p.unsynced {
		return nil
	}
	return time.After(partTime - time.Since(p.ended))
}

// endPart writes the current part to the log, and syncs the log to the disk if the last sync was at least syncTime ago.
// After an error it removes the log, and the run goes on without one.
func (p *parts) endPart() {
	p.ended = time.Now()
	var err error
	if len(p.pending) > 0 {
		err = p.write()
		p.unsynced = true
	}
	if err == nil && p.unsynced && p.ended.Sub(p.synced) >= syncTime {
		p.synced, p.unsynced = p.ended, false
		err = p.log.Sync()
	}
	if err != nil {
		p.unsynced = false
		p.remove()
		p.dropped(err)
	}
	p.pending, p.records, p.bytes = nil, 0, 0
}

// write writes the current part to the log. It does not create the log if the output folder was removed or replaced
// during the run.
func (p *parts) write() error {
	if !p.log.Exists() {
		if err := p.file.checkFolder(nil); err != nil {
			return err
		}
	}
	for _, s := range p.pending {
		values := s.result
		if s.failure != nil {
			values = nil
		}
		if err := p.log.Add(s.key(), values); err != nil {
			return err
		}
	}
	return p.log.Flush()
}

// close writes the current part and closes the log, so that a later run can continue from it. If the file itself has
// failed, close creates no log.
func (p *parts) close() {
	if p.log == nil || p.file.failure() != nil && !p.log.Exists() {
		return
	}
	p.endPart()
	if p.log != nil && p.log.Exists() {
		_ = p.log.Sync() // an error is ignored: without a sync, only a crash of the machine can lose the log
		p.log.Close()
	}
}

// end is called after the file's reader has ended. err is the error of the commit of the file's output, and end returns
// it. After a commit without an error, end removes the log. After an error it keeps a log that exists. A log that does
// not exist is created later only if the error is an ErrInterrupted.
func (p *parts) end(err error) error {
	p.endReplay()
	switch {
	case err == nil && p.log == nil:
		store.RemoveParts(p.file.Output.Main(p.file.File)) // the log of an earlier run, which this run has not used
	case err == nil:
		p.remove()
	case p.log != nil && !p.log.Exists() && !errors.Is(err, ErrInterrupted):
		p.log = nil
	}
	return err
}

func (p *parts) remove() {
	if p.log != nil {
		p.log.Remove()
		p.log = nil
	}
}
