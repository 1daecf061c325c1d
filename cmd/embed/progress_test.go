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

	"seqembed/internal/monitor"
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

// newTestProgress returns a progress that writes to out, with a dashboard if terminal is set. One model has begun to
// embed files of the given sizes in bytes.
func newTestProgress(t *testing.T, out io.Writer, terminal bool, sizes ...int64) *progress {
	t.Helper()
	s, _, err := parse(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	screen := monitor.NewScreen(out, func() (int, int) { return 120, 30 })
	log, err := newLog(s, screen, false)
	if err != nil {
		t.Fatal(err)
	}
	p := newProgress(s, log, screen, terminal)
	m := &model{familyFlags: new(familyFlags), config: tinyConfig, job: &pool.Job{}}
	m.model = "model"
	for i, size := range sizes {
		m.job.Files = append(m.job.Files, pool.File{Input: seqio.Input{Path: fmt.Sprintf("f%d", i)}, Size: size})
	}
	p.plan(noGPU, []*model{m}, nil)
	t.Cleanup(p.close)
	p.begin(m.model, m.config, len(sizes))
	return p
}

var tinyConfig, _ = transformer.Families.Config("esm2-tiny")

// TestDashboardUnderLoad checks the dashboard while several devices report batches at the same time. There must be no
// deadlock, all counts must be right, and every log line must be written.
func TestDashboardUnderLoad(t *testing.T) {
	var out shared
	p := newTestProgress(t, &out, true, 1000, 1000, 1000, 1000)
	done := make(chan struct{})
	go func() {
		defer close(done)
		var devices sync.WaitGroup
		for d := range 4 {
			devices.Go(func() {
				path := fmt.Sprintf("f%d", d)
				p.DeviceOpening(path)
				p.DeviceReady(path, 0)
				p.FileStarted(path, path)
				for range 500 {
					p.BatchDone(pool.Batch{Device: path, Path: path, Sequences: 2, Tokens: 10, Bytes: 1, Took: time.Millisecond})
				}
				p.RecordSkipped(path, "r", 1, errors.New("too large"))
				p.FileFinished(pool.FileReport{Path: path, Outputs: []store.File{{Path: "out/" + path}}, Skipped: map[string]int64{"empty": 2}})
			})
		}
		devices.Wait()
		p.close()
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("the display and the devices wait for each other")
	}
	text := out.String()
	if n := strings.Count(text, "file finished"); n != 4 || strings.Count(text, "record skipped") != 4 {
		t.Errorf("%d lines about finished files", n)
	}
	if m := p.Snapshot().Models[0]; m.FilesDone != 4 || m.Percent != 100 || m.Tokens != 20_000 || m.Skipped != 8 || len(m.Devices) != 4 {
		t.Errorf("%+v", m)
	}
	p.close() // must do nothing: the goroutine above has already called close
}

// TestInterruptionRemovesTheDashboard checks that no dashboard is drawn after an interruption, because the process may
// end at any moment.
func TestInterruptionRemovesTheDashboard(t *testing.T) {
	var out shared
	p := newTestProgress(t, &out, true, 1000)
	for end := time.Now().Add(time.Minute); !strings.Contains(out.String(), "running 0s"); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no dashboard within a minute")
		}
	}
	p.interrupted()
	p.show(nil)
	p.DeviceOpening("cpu")
	_, after, _ := strings.Cut(out.String(), "interrupted: ")
	if strings.Contains(after, "running") || strings.Contains(after, "\x1b") || !strings.Contains(after, "loading weights") {
		t.Errorf("after the interruption: %q", after)
	}
}

// TestProgressLines checks the log lines that report the progress if there is no dashboard. If the size of an input is
// unknown, the lines must have neither a percentage nor a remaining time.
func TestProgressLines(t *testing.T) {
	var out shared
	for sizes, want := range map[int64]string{0: "model=model files=0/1 sequences=3", 1000: "percent=50 left="} {
		p := newTestProgress(t, &out, false, sizes)
		p.DeviceReady("cpu", 0)
		p.BatchDone(pool.Batch{Device: "cpu", Path: "f0", Sequences: 3, Tokens: 30, Bytes: 500, Took: time.Millisecond})
		p.tell()
		line := out.String()[strings.LastIndex(out.String(), "progress"):]
		if !strings.Contains(line, want) || sizes == 0 && strings.Contains(line, "percent") {
			t.Errorf("the line is %q", line)
		}
	}
}

// TestLongRecordSaysWhatItCosts checks that the log line for a long record contains the expected time. The time is
// computed from the rate of a short trial batch or, once the run has computed batches, from the rate of these batches.
func TestLongRecordSaysWhatItCosts(t *testing.T) {
	var out shared
	p := newTestProgress(t, &out, false, 1000)
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
	// The rate of the run so far is ten sequences of 50 tokens in 100 ms.
	p.BatchDone(pool.Batch{Path: "f0", Sequences: 10, Tokens: 500, Took: 100 * time.Millisecond})
	p.LongRecord(long)
	want(time.Duration(work / (10 * tinyConfig.FLOPs(50)) * 1e8))
}

// TestHostileNames checks the dashboard for a file whose name contains control sequences of a terminal and an end of
// line. Neither may get into the dashboard, and the columns must stay below their titles.
func TestHostileNames(t *testing.T) {
	p := newTestProgress(t, io.Discard, false, 1000)
	p.DeviceReady("cpu", 0)
	p.BatchDone(pool.Batch{Device: "cpu", Path: "in/\x1b[31ma\nb.faa", Sequences: 3, Tokens: 30, Took: time.Millisecond})
	lines := dashboardLines(p.Snapshot(), 100)
	if text := strings.Join(lines, "|"); strings.ContainsAny(text, "\x1b\n") || !strings.Contains(text, `\x1b[31ma\nb.faa`) {
		t.Errorf("%q", text)
	}
	if title, row := lines[3], lines[4]; !strings.HasPrefix(title, "device") || len(title) != len(row) {
		t.Errorf("the columns are not below their titles:\n%s\n%s", title, row)
	}
}

// TestProgressInsideALongRecord checks that the progress inside a long record is in the dashboard and in log lines.
func TestProgressInsideALongRecord(t *testing.T) {
	var out shared
	p := newTestProgress(t, &out, false, 1000)
	p.DeviceReady("cpu", 0)
	inside := func() (dashboard, line string) {
		p.tell()
		return strings.Join(p.Snapshot().Lines(80), "\n"), out.String()[strings.LastIndex(out.String(), "progress"):]
	}
	stop := p.watch("cpu", func() float64 { return 0.25 })
	if dashboard, line := inside(); !strings.Contains(dashboard, "25% of a long record") || !strings.Contains(line, `cpu="25% of a long record"`) {
		t.Errorf("%q\n%s", line, dashboard)
	}
	stop()
	if dashboard, line := inside(); strings.Contains(dashboard+line, "long record") {
		t.Errorf("after the record: %q\n%s", line, dashboard)
	}
}

// TestDashboardOnATerminalOnly checks that there is a dashboard only on a terminal that obeys control sequences, and
// only if the flags allow it. A variable NO_COLOR that is not empty must forbid colors.
func TestDashboardOnATerminalOnly(t *testing.T) {
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no terminal can be had here: %v", err)
	}
	defer terminal.Close()
	t.Setenv("TERM", "xterm")
	screen, isTerminal := newScreen(terminal)
	if _, other := newScreen(io.Discard); !isTerminal || other {
		t.Error("a terminal is not told from a file")
	}
	for args, want := range map[string]bool{"": true, "-v": true, "-q": false, "--no-progress": false, "--log-format=json": false} {
		s, _, err := parse(strings.Fields(args), nil)
		if err != nil {
			t.Fatal(err)
		}
		if p := newProgress(s, nil, screen, isTerminal); p.dashboard != want {
			t.Errorf("%q: a dashboard is %v, want %v", args, p.dashboard, want)
		}
	}
	t.Setenv("TERM", "dumb")
	if _, isTerminal := newScreen(terminal); isTerminal {
		t.Error("a dumb terminal gets control sequences")
	}
	if !colored([]string{"NO_COLOR=", "HOME=/"}) || colored([]string{"NO_COLOR=1"}) {
		t.Error("NO_COLOR is not obeyed")
	}
}

// TestColors checks that the word WARN is yellow and the word ERROR red in a colored log, and that a log without colors
// has no control sequences.
func TestColors(t *testing.T) {
	for colored, want := range map[bool]string{false: " INFO  a\n WARN  b\n ERROR c\n", true: " INFO  a\n \x1b[33mWARN \x1b[0m b\n \x1b[31mERROR\x1b[0m c\n"} {
		var out strings.Builder
		log, err := newLog(&settings{logFormat: "text"}, &out, colored)
		if err != nil {
			t.Fatal(err)
		}
		log.Info("a")
		log.Warn("b")
		log.Error("c")
		var got strings.Builder
		for line := range strings.Lines(out.String()) {
			got.WriteString(line[len("2006-01-02 15:04:05"):])
		}
		if strings.ReplaceAll(got.String(), "  ", " ") != strings.ReplaceAll(want, "  ", " ") {
			t.Errorf("colored %v: %q", colored, got.String())
		}
	}
}

// TestOverflowsAreWarnedOf checks that a log line gives the number of values that float16 cannot hold. Without such
// values there must be no line.
func TestOverflowsAreWarnedOf(t *testing.T) {
	for overflows, want := range map[int64]bool{0: false, 3: true} {
		out := &shared{}
		newTestProgress(t, out, false).FileFinished(pool.FileReport{Path: "f", Overflows: overflows, Outputs: []store.File{{Path: "x"}}})
		if got := strings.Contains(out.String(), "beyond the range of float16") && strings.Contains(out.String(), "values=3"); got != want {
			t.Errorf("%d overflows: %s", overflows, out)
		}
	}
}
