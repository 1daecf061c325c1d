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

// namedPipe is a pipe that stays open until the test ends, with some content in it already.
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
		// A reader that is gone makes this fail, which is its affair.
		_, _ = pipe.WriteString(content)
		<-done
		pipe.Close()
	}()
	return path, sync.OnceFunc(func() { close(done) })
}

// TestPipeIsReadOnce: what planning has read of a named pipe, such as the shell's <(command), is not lost.
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

// TestBrokenOffWhileAPipeIsSilent: neither an interruption nor a failure waits for the next byte of a pipe.
func TestBrokenOffWhileAPipeIsSilent(t *testing.T) {
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

	// A file that fails for its own sake ends as well, and the run goes on.
	b = silentPipe()
	b.add("a.faa", ">a\nMKV\n")
	b.fake.spoil = func(row []float32, _ []int32) { row[0] = float32(math.NaN()) }
	if s, err := b.runWithin(t.Context(), 20*time.Second); err != nil || len(s.Failed) != 2 {
		t.Errorf("failed %v: %v", s.Failed, err)
	}
}

// TestPipeWithoutAWriter: planning ends with its context where a pipe is silent or cannot even be opened.
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
	pipe, err := os.OpenFile(path, os.O_RDWR, 0) // lets the goroutine end that opens the pipe
	if err != nil {
		t.Fatal(err)
	}
	pipe.Close()
}
