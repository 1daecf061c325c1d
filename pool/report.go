package pool

import (
	"time"

	"seqembed/internal/seqio"
	"seqembed/internal/store"
)

// Observer is told what happens, from several goroutines at a time. Its methods must return quickly.
type Observer interface {
	DeviceOpening(device string)
	DeviceReady(device string, took time.Duration)
	DeviceLost(device string, err error) // others are left and go on with its files
	FileStarted(path, device string)
	BatchDone(Batch)
	LongRecord(path, id string, tokens int)            // over 50,000 tokens: it will take long
	BudgetHalved(device string, tokens int, err error) // to so many tokens a batch
	RecordSkipped(path, id string, line int64, err error)
	FileSkipped(path string) // complete since an earlier run
	FileFinished(FileReport)
	FileFailed(Failure)
}

// Batch is one batch that was computed.
type Batch struct {
	Device, Path string
	Sequences    int
	Tokens       int
	Bytes        int64 // of the input on disk that it stands for, about
	Took         time.Duration
}

// FileReport says how one file was embedded.
type FileReport struct {
	Path              string
	Device            string           // or several, joined by commas
	Records           int64            // rows written
	Tokens            int64            // special tokens included
	Letters           int64            // used
	Unknown           int64            // of them, letters that became the unknown token
	Truncated         int64            // records
	Cut               []Truncation     // the first of them
	Skipped           map[string]int64 // records left out, by reason
	Examples          []seqio.Skip     // some of them
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

// Summary adds up a run.
type Summary struct {
	Files             []FileReport // finished
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
