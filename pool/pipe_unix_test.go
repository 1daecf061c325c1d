//go:build unix

package pool

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"seqembed/internal/seqio"
)

// namedPipe creates a named pipe that contains some content. The pipe stays open until end is called.
func (b *bench) namedPipe(content string) (path string, end func()) {
	b.Helper()
	path = filepath.Join(b.in, "pipe.faa")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		b.Skipf("this system has no named pipes here: %v", err)
	}
	done := make(chan struct{})
	go func() {
		pipe, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			b.Error(err)
			return
		}
		// The write fails if the reader has closed the pipe, as it does after an interruption.
		_, _ = pipe.WriteString(content)
		<-done
		pipe.Close()
	}()
	return path, sync.OnceFunc(func() { close(done) })
}

// TestPipeIsReadOnce checks that the beginning of a named pipe, which planning reads, is embedded as well. A shell's
// <(command) is such a pipe.
func TestPipeIsReadOnce(t *testing.T) {
	b := newBench(t)
	records := randomRecords(1, upTo(200)...)
	path, end := b.namedPipe(fasta(records))
	time.AfterFunc(50*time.Millisecond, end)
	b.plan(path)
	b.run()
	b.check("pipe", records)

	second := b.again()
	if _, err := second.job.Run(t.Context()); !errors.Is(err, ErrMixture) {
		t.Errorf("second run: %v", err)
	}
}

// TestInterruptedWhileAPipeIsSilent checks that a run does not wait for more input from a silent pipe after it was
// interrupted, after its only device was lost, or after the file of the pipe has failed.
func TestInterruptedWhileAPipeIsSilent(t *testing.T) {
	content := fasta(randomRecords(1, upTo(200)...))
	silentPipe := func() *bench {
		b := newBench(t)
		path, end := b.namedPipe(content)
		t.Cleanup(end)
		b.plan(path)
		return b
	}

	b := silentPipe()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(200*time.Millisecond, cancel)
	if _, err := b.runWithin(ctx, 20*time.Second); !errors.Is(err, ErrInterrupted) {
		t.Errorf("Run: %v", err)
	}
	b.wantNames()

	b = silentPipe()
	b.fake.failing(1)
	if s, err := b.runWithin(t.Context(), 20*time.Second); !errors.Is(err, errBroken) || len(s.Failed) != 0 {
		t.Errorf("failed %v: %v", s.Failed, err)
	}
	b.wantNames()

	// If the file of the pipe fails, its reader must end, and the run must continue with the next file.
	b = silentPipe()
	b.add("a.faa", ">a\nMKV\n")
	b.fake.spoil = func(row []float32, _ []int32) { row[0] = float32(math.NaN()) }
	if s, err := b.runWithin(t.Context(), 20*time.Second); err != nil || len(s.Failed) != 2 {
		t.Errorf("failed %v: %v", s.Failed, err)
	}
}

// TestPipeWithoutAWriter checks that Plan returns when its context is cancelled, even if it is still waiting to open a
// named pipe that no process writes to.
func TestPipeWithoutAWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe.faa")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Skipf("this system has no named pipes here: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, _, failed, err := Plan(ctx, []seqio.Input{{Path: path, Name: "pipe"}}, seqio.Options{}); !errors.Is(err, ErrInterrupted) {
		t.Errorf("Plan: failed %v, %v", failed, err)
	}
	pipe, err := os.OpenFile(path, os.O_RDWR, 0) // ends the goroutine that is blocked in opening the pipe
	if err != nil {
		t.Fatal(err)
	}
	pipe.Close()
}
