package pool

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"seqembed/internal/seqio"
	"seqembed/kernels"
)

// TestBadRecordsAreFoundBesideTheFirstBatches checks that bad records at the end of a file are found early. The device
// finishes no batch until the file has failed, so only the goroutine of checkBeside can find them. The error must name
// all bad records, and good files must be written.
func TestBadRecordsAreFoundBesideTheFirstBatches(t *testing.T) {
	b := newBench(t)
	records := randomRecords(1, upTo(300)...)
	good := randomRecords(2, 5, 6)
	bad := b.add("bad.faa", fasta(records)+">x\nMK!V\n>"+records[0].id+"\nMKV\n>y\n--\n")
	b.add("good.faa", fasta(good))
	b.job.Long, b.job.MaxLength = LongError, 299
	gate := make(chan struct{})
	b.fake.fault = func(kernels.Batch) error {
		select {
		case <-gate:
		case <-time.After(time.Minute):
			t.Error("the file has not failed within a minute")
		}
		return nil
	}
	b.seen.onFail = sync.OnceFunc(func() { close(gate) })
	s, err := b.runWithin(b.Context(), 2*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	b.check("good", good)
	b.wantNames(outputsOf("good")...)
	if len(s.Failed) != 1 || s.Failed[0].Path != bad || s.Failed[0].Type != "record" {
		t.Fatalf("failed: %v", s.Failed)
	}
	for _, want := range []string{": 4 bad records: ", "300 letters; the longest allowed is 299", `line 601: record "x": letter 3: "!"`,
		`line 603: record "` + records[0].id + `": the record on line 1 has the same id`, `line 605: record "y": no sequence, only gaps`} {
		if !strings.Contains(s.Failed[0].Err.Error(), want) {
			t.Errorf("%v does not say %s", s.Failed[0].Err, want)
		}
	}
	if !errors.Is(s.Failed[0].Err, ErrTooLong) || !errors.Is(s.Failed[0].Err, seqio.ErrDuplicateID) {
		t.Errorf("the kinds of %v are lost", s.Failed[0].Err)
	}
}

// TestInputThatChangesWhileItIsRead checks that an input that changes while it is read fails with ErrChanged and leaves
// no output, whether or not its new content is valid.
func TestInputThatChangesWhileItIsRead(t *testing.T) {
	// The reader reads only a part of these records before the first batch.
	records := fasta(randomRecords(1, slices.Repeat(upTo(400), 10)...))
	for name, change := range map[string]func(path string) error{
		"grows": func(path string) error {
			f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteString(">more\nMKV\n>half\nMK!")
			return errors.Join(err, f.Close())
		},
		"is emptied": func(path string) error { return os.Truncate(path, 0) },
		"is overwritten": func(path string) error { // same size, other letters
			return os.WriteFile(path, []byte(strings.ReplaceAll(records, "A", "G")), 0o666)
		},
		"is cut":     func(path string) error { return os.Truncate(path, int64(len(records)-3)) },
		"is renewed": func(path string) error { return os.Chtimes(path, time.Time{}, time.Now().Add(-time.Hour)) },
		"is replaced": func(path string) error {
			if err := os.WriteFile(path+".new", []byte(">other\nMKV\n"), 0o666); err != nil {
				return err
			}
			return os.Rename(path+".new", path)
		},
		"is removed": os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			path := writeFile(t, filepath.Join(b.in, "in.faa"), records)
			old := time.Now().Add(-time.Minute) // so that the change gives the file another modification time
			if err := os.Chtimes(path, old, old); err != nil {
				t.Fatal(err)
			}
			b.plan(path)
			once := sync.OnceValue(func() error { return change(path) })
			b.fake.fault = func(kernels.Batch) error { return once() }
			s := b.run()
			if len(s.Failed) != 1 || s.Failed[0].Type != "changed" || !errors.Is(s.Failed[0].Err, ErrChanged) ||
				!strings.HasPrefix(s.Failed[0].Err.Error(), path+": ") {
				t.Errorf("failed: %v", s.Failed)
			}
			if len(b.outputs()) > 0 {
				t.Errorf("it left %v", b.outputs())
			}
		})
	}
}

// TestInputOfAnotherAlphabetThanPlanned checks that a file that is replaced between planning and reading is not
// embedded by the model for its old alphabet.
func TestInputOfAnotherAlphabetThanPlanned(t *testing.T) {
	b := newBench(t)
	path := writeFile(t, filepath.Join(b.in, "in.fa"), fasta(randomRecords(1, 50)))
	_, protein, failed, err := Plan(t.Context(), []seqio.Input{{Path: path, Name: "in"}}, seqio.Options{})
	if len(protein) != 1 || len(failed) > 0 || err != nil {
		t.Fatal(protein, failed, err)
	}
	if want := (seqio.Finding{Alphabet: seqio.Protein, Why: seqio.BecauseLetters}); protein[0].Finding != want {
		t.Errorf("planned with %v, want %v", protein[0].Finding, want)
	}
	b.job.Files = protein
	writeFile(t, path, ">d\nACGTACGTACGTACGTACGT\n")
	if s := b.run(); len(s.Failed) != 1 || !errors.Is(s.Failed[0].Err, ErrChanged) {
		t.Errorf("failed: %v", s.Failed)
	}
}
