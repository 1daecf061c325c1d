package pool

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"seqembed/internal/seqio"
	"seqembed/kernels"
)

// TestDeviceIsKeptBusyAcrossFiles checks that two batches are in flight even if each file is a single batch.
func TestDeviceIsKeptBusyAcrossFiles(t *testing.T) {
	b := newBench(t)
	b.job.Devices[0].Ahead = 1
	b.fake.fault = func(kernels.Batch) error { time.Sleep(5 * time.Millisecond); return nil }
	b.addFiles(30)
	if s := b.run(); len(s.Files) != 30 || b.fake.calls.Load() != 30 || b.fake.most.Load() != 2 {
		t.Errorf("%d files in %d batches, at most %d in flight", len(s.Files), b.fake.calls.Load(), b.fake.most.Load())
	}
}

// TestComputedFileSurvivesAnInterruption checks that a file that is already computed is written when the run is
// interrupted.
func TestComputedFileSurvivesAnInterruption(t *testing.T) {
	b := newBench(t)
	records := randomRecords(1, 5, 40, 6)
	b.add("a.faa", fasta(records))
	b.job.Reading.OnBad = seqio.BadSkip
	b.fake.memory = 20 // too small for the record of 40 letters, which the writer then reports as skipped
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	b.seen.onSkip = cancel
	s, err := b.job.Run(ctx)
	if err != nil || len(s.Files) != 1 || s.Records != 2 || s.Skipped != 1 {
		t.Errorf("%d files, %d rows, %d skipped: %v", len(s.Files), s.Records, s.Skipped, err)
	}
	b.wantNames(outputsOf("a")...)
}

// TestBatchInFlightIsKept checks that after an interruption the batch in flight is finished, that the file which it
// completes is written, and that no other batch is started.
func TestBatchInFlightIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.addFiles(2)
		b.fake.fault = func(kernels.Batch) error { time.Sleep(time.Second); return nil }
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second/2, cancel)
		s, err := b.job.Run(ctx)
		if !errors.Is(err, ErrInterrupted) || len(s.Files) != 1 || b.fake.calls.Load() != 1 {
			t.Errorf("%d files in %d batches: %v", len(s.Files), b.fake.calls.Load(), err)
		}
		b.wantNames(outputsOf("f0")...)
	})
}

// TestPipeSurvivesALostDevice checks that another device computes the spans of records of a lost device, although the
// pipe with these records cannot be read again.
func TestPipeSurvivesALostDevice(t *testing.T) {
	b := newBench(t)
	b.fake.budget = 20
	other, failed := &fake{columns: oneMean}, make(chan struct{})
	b.fake.fault = func(kernels.Batch) error {
		if b.fake.calls.Load() == 3 {
			close(failed)
			return errBroken
		}
		return nil
	}
	records := randomRecords(1, upTo(60)...)
	b.planStdin(fasta(records))
	late := other.device("late")
	late.Open = func() (Embedder, error) { <-failed; return other, nil }
	b.job.Devices = []Device{b.fake.device("broken"), late}
	if s := b.run(); len(s.Failed) != 0 || other.calls.Load() == 0 {
		t.Errorf("failed %v; the other device computed %d batches", s.Failed, other.calls.Load())
	}
	b.check("stdin", records)
}
