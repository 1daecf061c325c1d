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
	DeviceLost(device string, err error) // other devices are left and continue its work
	FileStarted(path, device string)
	BatchDone(Batch)
	LongRecord(path, id string, tokens int)            // more than 50,000 tokens, which will take long
	BudgetHalved(device string, tokens int, err error) // tokens is the new budget
	RecordSkipped(path, id string, line int64, err error)
	FileSkipped(path string) // the output of an earlier run is complete
	FileFinished(FileReport)
	FileFailed(Failure)
}

// Batch describes a batch that was computed.
type Batch struct {
	Device, Path string
	Sequences    int
	Tokens       int
	Bytes        int64 // approximate size of its input on disk
	Took         time.Duration
}

// FileReport is the result of one file.
type FileReport struct {
	Path              string
	Device            string           // names of the devices, separated by commas
	Records           int64            // number of rows written
	Tokens            int64            // including special tokens
	Letters           int64            // number of letters used
	Unknown           int64            // number of letters that became the unknown token
	Truncated         int64            // number of truncated records
	Cut               []Truncation     // some of the truncated records
	Skipped           map[string]int64 // number of skipped records by reason
	Examples          []seqio.Skip     // some of the skipped records
	Outputs           []store.File
	Started, Finished time.Time
}

// Truncation is a record of which only the beginning was used.
type Truncation struct {
	ID      string
	Line    int64 // of its header
	Letters int   // before
}

// maxTruncations is how many truncated records a report names.
const maxTruncations = 3

func (f *FileReport) count(rec *record) {
	f.Records++
	f.Tokens += int64(rec.row.Tokens)
	f.Letters += int64(rec.row.Length)
	f.Unknown += int64(rec.unknown)
	if rec.row.Truncated {
		if f.Truncated++; f.Truncated <= maxTruncations {
			f.Cut = append(f.Cut, Truncation{rec.row.ID, rec.line, rec.letters})
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
	for _, n := range f.Skipped {
		s.Skipped += n
	}
}
