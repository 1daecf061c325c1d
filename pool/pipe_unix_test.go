//go:build unix

package pool

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"seqembed/kernels"
)

// namedPipe is a pipe that stays open until the test ends, with some content
// in it already.
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
	return path, func() { close(done) }
}

// TestPipeIsReadOnce: what planning has read of a named pipe, such as the
// shell's <(command), is not lost.
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

// TestBrokenOffWhileAPipeIsSilent: neither an interruption nor a failure
// waits for the next byte of a pipe.
func TestBrokenOffWhileAPipeIsSilent(t *testing.T) {
	content := fasta(randomRecords(1, upTo(200)...))

	b := newBench(t)
	path, end := b.namedPipe(content)
	defer end()
	b.plan(path)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(200*time.Millisecond, cancel)
	if _, err := b.runWithin(ctx, 20*time.Second); !errors.Is(err, ErrInterrupted) {
		t.Errorf("Run: %v", err)
	}
	b.wantNames()

	b = newBench(t)
	path, end = b.namedPipe(content)
	defer end()
	b.plan(path)
	b.fake.fault = func(kernels.Batch) error { return errBroken }
	if s, err := b.runWithin(t.Context(), 20*time.Second); err != nil || len(s.Failed) != 1 || s.Failed[0].Type != "device" {
		t.Errorf("failed %v: %v", s.Failed, err)
	}
	b.wantNames()
}
