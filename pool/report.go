package pool

import (
	"slices"
	"time"

	"seqembed/internal/seqio"
	"seqembed/internal/store"
)

// Observer receives the events of a run. Its methods are called from several goroutines concurrently and must return
// quickly.
type Observer interface {
	DeviceOpening(device string)
	DeviceReady(device string, took time.Duration)
	DeviceLost(device string, err error) // called only if the run goes on with the other devices
	FileStarted(path, device string)
	// FileContinued reports that the results of the first records of a file are those of an earlier run.
	FileContinued(path string, records int64)
	// PartsDropped reports that the part log of a file cannot be used, or not to its end. Runs keep the results of a
	// file in this log until the output of the file is complete. The run computes the missing results.
	PartsDropped(path string, reason error)
	BatchDone(Batch)
	// SpanRead reports that a reader has read and tokenized a span, which is a list of consecutive records, in the time
	// busy. Before, the reader had waited for the time waited, because the maximum number of spans was in memory.
	SpanRead(busy, waited time.Duration)
	// SpanKnown reports a span of records of which nothing had to be computed, and the size of the span in the input
	// file.
	SpanKnown(path string, bytes int64)
	// SpanWritten reports that the writer of a file has stored a span of records, or committed the output, in the time
	// busy. Before, the writer had waited for the time waited until the span was computed.
	SpanWritten(busy, waited time.Duration)
	LongRecord(LongRecord) // called before the record is computed
	// RecordWritten reports the rows of a record. It is called for the records of a file in their order. The rows are
	// valid until RecordWritten returns.
	RecordWritten(path string, line int64, rows []store.Row)
	// BudgetHalved reports that a batch did not fit the memory of a device, because of err. tokens is the new maximum
	// number of tokens in a batch of several sequences.
	BudgetHalved(device string, tokens int, err error)
	RecordSkipped(path, id string, line int64, err error)
	FileSkipped(path string) // not computed, because the output of an earlier run is complete
	FileFinished(FileReport)
	FileFailed(Failure)
}

// Batch describes a batch that was computed.
type Batch struct {
	Device, Path string
	Sequences    int
	Tokens       int
	Budget       int   // maximum number of tokens in a batch of several sequences
	Bytes        int64 // approximate size of the records of the batch in the input file
	Took         time.Duration
	Waited       time.Duration // time before the batch in which the device had nothing to compute
}

// FileReport is the result of one file.
type FileReport struct {
	Path              string
	Device            string           // names of the devices that computed the file, separated by commas
	Records           int64            // number of records written
	Tokens            int64            // number of tokens, including special tokens
	Letters           int64            // number of letters used; those in two windows count twice
	Unknown           int64            // number of letters that became unknown tokens; those in two windows count twice
	Truncated         int64            // number of truncated records
	Cut               []Truncation     // some of the truncated records
	Repeated          int64            // number of records whose sequences were computed for earlier records
	Overflows         int64            // number of values that Output.DType turned into infinities
	CutShort          bool             // whether the file may be cut short (see seqio.Reader.CutShort)
	Skipped           map[string]int64 // number of skipped records, by reason
	Examples          []seqio.Skip     // some of the skipped records
	Outputs           []store.File
	Started, Finished time.Time
}

// Truncation is a record that was truncated.
type Truncation struct {
	ID      string
	Line    int64 // line of the record's header
	Letters int   // number of letters before truncation
}

// maxTruncations is the maximum number of truncated records that a report names.
const maxTruncations = 3

func (f *FileReport) count(rec *record) {
	f.Records++
	f.Tokens += int64(rec.row.Tokens)
	if rec.repeated() {
		f.Repeated++
	}
	for _, w := range rec.windows {
		f.Letters += int64(w.to - w.from)
	}
	f.Unknown += int64(rec.unknown)
	if rec.row.Truncated {
		if f.Truncated++; f.Truncated <= maxTruncations {
			f.Cut = append(f.Cut, Truncation{rec.row.ID, rec.line, rec.row.RecordLength})
		}
	}
}

// Summary is the result of a run.
type Summary struct {
	Files             []FileReport // finished files
	Resumed           []string     // files that an earlier run had finished
	Failed            []Failure
	Records           int64
	Tokens            int64
	Letters           int64
	Unknown           int64
	Truncated         int64
	Repeated          int64
	Skipped           int64
	Started, Finished time.Time
}

// Done returns the paths of all files whose outputs are complete.
func (s *Summary) Done() []string {
	done := slices.Clone(s.Resumed)
	for _, f := range s.Files {
		done = append(done, f.Path)
	}
	return done
}

func (s *Summary) add(f FileReport) {
	s.Files = append(s.Files, f)
	s.Records += f.Records
	s.Tokens += f.Tokens
	s.Letters += f.Letters
	s.Unknown += f.Unknown
	s.Truncated += f.Truncated
	s.Repeated += f.Repeated
	for _, n := range f.Skipped {
		s.Skipped += n
	}
}
