package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"seqembed/internal/seqio"
	"seqembed/internal/store"
	"seqembed/pool"
	"seqembed/transformer"
)

// shared is a buffer that several goroutines may write to.
type shared struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *shared) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// newTestProgress returns a progress that writes to out, with a bar if terminal is set.
func newTestProgress(t *testing.T, out io.Writer, terminal bool) *progress {
	t.Helper()
	s, _, err := parse(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	log, err := newLog(s, out)
	if err != nil {
		t.Fatal(err)
	}
	p := newProgress(s, log, out)
	if terminal {
		p.terminal = out
	}
	return p
}

func inputs(sizes ...int64) []pool.File {
	var list []pool.File
	for i, size := range sizes {
		list = append(list, pool.File{Input: seqio.Input{Path: fmt.Sprintf("f%d", i)}, Size: size})
	}
	return list
}

var tinyConfig, _ = transformer.Families.Config("esm2-tiny")

// TestBarUnderLoad checks the bar while several devices report batches. The bar reads the counts that the reports
// change, and there must be no deadlock. Every log line must be written, and the bar must end full.
func TestBarUnderLoad(t *testing.T) {
	var out shared
	p := newTestProgress(t, &out, true)
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.begin("model", tinyConfig, inputs(1000, 1000, 1000, 1000))
		var devices sync.WaitGroup
		for d := range 4 {
			devices.Go(func() {
				path := fmt.Sprintf("f%d", d)
				p.DeviceReady(path, 0)
				p.FileStarted(path, path)
				for end := time.Now().Add(400 * time.Millisecond); time.Now().Before(end); {
					p.BatchDone(pool.Batch{Device: path, Path: path, Sequences: 2, Tokens: 10, Bytes: 1, Took: time.Millisecond})
				}
				p.RecordSkipped(path, "r", 1, errors.New("too large"))
				p.FileFinished(pool.FileReport{Path: path, Outputs: []store.File{{Path: "out/" + path}}})
			})
		}
		devices.Wait()
		p.end()
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("the display and the devices wait for each other")
	}
	text := out.String()
	if n := strings.Count(text, "file finished"); n != 4 || strings.Count(text, "record skipped") != 4 {
		t.Errorf("%d lines about finished files", n)
	}
	if frame := text[strings.LastIndex(text, "model "):]; !strings.Contains(frame, "4/4 files") || !strings.Contains(frame, "100%") || !strings.HasSuffix(frame, "\n") {
		t.Errorf("the last frame is %q", frame)
	}
	if p.logger() != p.plain {
		t.Error("log lines still go above the bar")
	}
	p.end() // must do nothing the second time
}

// TestBarEndsFull checks that the bar ends full in spite of rounding.
func TestBarEndsFull(t *testing.T) {
	var out shared
	p := newTestProgress(t, &out, true)
	p.begin("model", tinyConfig, inputs(1, 1))
	p.FileSkipped("f0")
	p.FileSkipped("f1")
	p.end()
	frame := out.String()[strings.LastIndex(out.String(), "model "):]
	if _, shape, _ := strings.Cut(frame, "["); !strings.HasPrefix(strings.TrimLeft(shape, "="), "]") {
		t.Errorf("the last frame is %q", frame)
	}
}

// TestBarThatIsBrokenOff checks that the bar of an incomplete run stays where it is.
func TestBarThatIsBrokenOff(t *testing.T) {
	var out shared
	p := newTestProgress(t, &out, true)
	p.begin("model", tinyConfig, inputs(100, 100))
	p.DeviceReady("cpu", 0)
	p.BatchDone(pool.Batch{Path: "f0", Sequences: 1, Tokens: 10, Bytes: 40, Took: time.Millisecond})
	p.end()
	text := out.String()
	if frame := text[strings.LastIndex(text, "model "):]; !strings.Contains(frame, "0/2 files") || !strings.Contains(frame, " 20% ") {
		t.Errorf("the last frame is %q", frame)
	}
}

// TestUnknownSizes checks that neither a percentage nor a remaining time is shown if the size of an input is unknown.
func TestUnknownSizes(t *testing.T) {
	var out shared
	p := newTestProgress(t, &out, false)
	p.begin("model", tinyConfig, inputs(0))
	p.DeviceReady("cpu", 0)
	p.told = time.Now().Add(-2 * tickEvery)
	p.BatchDone(pool.Batch{Path: "f0", Sequences: 3, Tokens: 30, Bytes: 500, Took: time.Millisecond})
	if _, right := p.beside(); strings.Contains(right, "%") || strings.Contains(right, "left") || !strings.Contains(right, "3 sequences") {
		t.Errorf("beside the bar: %q", right)
	}
	if text := out.String(); !strings.Contains(text, "progress") || strings.Contains(text, "percent") {
		t.Errorf("the line that tells the progress: %q", text)
	}
}

// TestProgressCounts checks the bar when files are already complete or fail, and when another device computes spans
// (see pool.Job) again.
func TestProgressCounts(t *testing.T) {
	p := newTestProgress(t, io.Discard, false)
	p.begin("model", tinyConfig, inputs(100, 200, 300))
	p.DeviceReady("cpu", 0)
	batch := func(path string, bytes int64) {
		p.BatchDone(pool.Batch{Path: path, Sequences: 1, Tokens: 10, Bytes: bytes, Took: time.Millisecond})
	}
	want := func(percent int64) {
		t.Helper()
		if got := p.percent(); got != percent {
			t.Errorf("%d%%, want %d%%", got, percent)
		}
	}
	p.FileSkipped("f0")
	want(16)
	p.FileStarted("f1", "one")
	batch("f1", 150)
	want(41)
	p.DeviceLost("one", errors.New("gone"))
	batch("f1", 60) // includes bytes that are counted again: the file has only 200
	want(50)
	p.FileFailed(pool.Failure{Path: "f1", Err: errors.New("bad record")})
	want(50)
	batch("f1", 40) // was in flight when its file failed
	want(50)
	p.FileStarted("f2", "two")
	batch("f2", 299)
	p.FileFinished(pool.FileReport{Path: "f2", Outputs: []store.File{{Path: "x"}}})
	want(100)
	if p.finished != 3 {
		t.Errorf("%d files", p.finished)
	}
}

// TestRemaining checks that the remaining time is computed from the bytes of this run, without those of an earlier run.
func TestRemaining(t *testing.T) {
	p := newTestProgress(t, io.Discard, false)
	p.begin("model", tinyConfig, inputs(1000, 400, 600))
	p.FileSkipped("f0")
	if _, ok := p.remaining(); ok {
		t.Error("an estimate from nothing")
	}
	p.began = time.Now().Add(-10 * time.Second)
	p.BatchDone(pool.Batch{Path: "f1", Sequences: 1, Tokens: 10, Bytes: 250, Took: time.Millisecond})
	if left, ok := p.remaining(); !ok || left != 30*time.Second {
		t.Errorf("%v left, want 30s for 750 bytes after 10s for 250", left)
	}
}

// TestLongRecordSaysWhatItCosts checks that the log line for a long record contains the expected time. The time follows
// from the trial (see pool.LongRecord) or from the rate so far.
func TestLongRecordSaysWhatItCosts(t *testing.T) {
	var out shared
	p := newTestProgress(t, &out, false)
	p.begin("model", tinyConfig, inputs(1000))
	long := pool.LongRecord{Path: "f0", ID: "chromosome", Tokens: 100_000, TrialTokens: 2000, TrialTook: time.Second}
	want := func(d time.Duration) {
		t.Helper()
		line := out.String()[strings.LastIndex(out.String(), "very long"):]
		for _, part := range []string{"record=chromosome", "tokens=100000", "--long window", fmt.Sprintf(`about="%d minutes"`, int(d.Minutes()+0.5))} {
			if !strings.Contains(line, part) {
				t.Errorf("%q does not mention %q", line, part)
			}
		}
	}
	p.LongRecord(long)
	work := tinyConfig.FLOPs(100_000)
	want(time.Duration(work / tinyConfig.FLOPs(2000) * 1e9))
	// The rate so far: ten sequences of 50 tokens in 100 ms.
	p.BatchDone(pool.Batch{Path: "f0", Sequences: 10, Tokens: 500, Took: 100 * time.Millisecond})
	p.LongRecord(long)
	want(time.Duration(work / (10 * tinyConfig.FLOPs(50)) * 1e8))
}

// TestProgressInsideALongRecord checks that the progress inside a long record is shown beside the bar, or in a log line
// if there is no bar.
func TestProgressInsideALongRecord(t *testing.T) {
	var out shared
	p := newTestProgress(t, &out, false)
	p.begin("model", tinyConfig, inputs(1000))
	stop := p.watch(func() float64 { return 0.25 })
	if _, right := p.beside(); !strings.Contains(right, "25% of a long record") {
		t.Errorf("beside the bar: %q", right)
	}
	stop()
	if _, right := p.beside(); strings.Contains(right, "long record") {
		t.Errorf("after the record: %q", right)
	}
	p.tellInside(0.25, 10*time.Minute)
	p.tellInside(0.001, time.Minute)
	if text := out.String(); !strings.Contains(text, `progress in the long record  percent=25 left="30 minutes"`) || strings.Count(text, "left=") != 1 {
		t.Errorf("the log: %s", text)
	}
}

// TestBarOnATerminalOnly checks that there is a bar only on a terminal, and only if the flags allow it.
func TestBarOnATerminalOnly(t *testing.T) {
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no terminal can be had here: %v", err)
	}
	defer terminal.Close()
	for args, want := range map[string]bool{"": true, "-v": true, "-q": false, "--no-progress": false, "--log-format=json": false} {
		s, _, err := parse(strings.Fields(args), nil)
		if err != nil {
			t.Fatal(err)
		}
		if p := newProgress(s, nil, terminal); (p.terminal != nil) != want {
			t.Errorf("%q: a bar is %v, want %v", args, p.terminal != nil, want)
		}
		if newProgress(s, nil, io.Discard).terminal != nil {
			t.Errorf("%q: a bar where there is no terminal", args)
		}
	}
}

// TestOverflowsAreWarnedOf checks the line about values that float16 cannot hold.
func TestOverflowsAreWarnedOf(t *testing.T) {
	for overflows, want := range map[int64]bool{0: false, 3: true} {
		out := &shared{}
		newTestProgress(t, out, false).FileFinished(pool.FileReport{Path: "f", Overflows: overflows, Outputs: []store.File{{Path: "x"}}})
		if got := strings.Contains(out.String(), "beyond the range of float16") && strings.Contains(out.String(), "values=3"); got != want {
			t.Errorf("%d overflows: %s", overflows, out)
		}
	}
}
