package monitor

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// terminal imitates a terminal for the control sequences that a Screen writes. A line longer than its width takes
// several rows.
type terminal struct {
	mu    sync.Mutex
	width int
	rows  []string // the cursor is below the last row
}

func (t *terminal) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := string(p)
	if rest, ok := strings.CutPrefix(text, "\r\x1b["); ok {
		var up int
		if _, err := fmt.Sscanf(rest, "%dA\x1b[J", &up); err != nil {
			panic(fmt.Sprintf("the control sequence %q", text))
		}
		_, text, _ = strings.Cut(rest, "J")
		t.rows = t.rows[:len(t.rows)-up] // panics if the cursor would go above the first row
	}
	for line := range strings.Lines(text) {
		letters := []rune(strings.TrimSuffix(line, "\n"))
		for len(letters) > t.width {
			t.rows, letters = append(t.rows, string(letters[:t.width])), letters[t.width:]
		}
		t.rows = append(t.rows, string(letters))
	}
	return len(p), nil
}

func (t *terminal) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.rows, "\n")
}

func (t *terminal) size() (width, height int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.width, 24
}

// waitFor waits until a condition holds. It fails the test after a minute.
func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

// TestScreen checks that lines appear above the dashboard, that a new frame of the dashboard replaces the last one, and
// that no part of the dashboard is left after Close.
func TestScreen(t *testing.T) {
	term := &terminal{width: 20}
	s := NewScreen(term, term.size)
	var frame atomic.Int64
	fmt.Fprintln(s, "before")
	s.Show(func(width int) []string {
		return []string{fmt.Sprint("frame ", frame.Load()), strings.Repeat("x", 3*width)}
	})
	waitFor(t, "the first frame", func() bool { return term.String() == "before\nframe 0\nxxxxxxxxxxxxxxxxxx…" })
	frame.Store(1)
	fmt.Fprintln(s, "in between")
	if got, want := term.String(), "before\nin between\nframe 1\nxxxxxxxxxxxxxxxxxx…"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	s.Close()
	s.Close()
	fmt.Fprintln(s, "after")
	if got, want := term.String(), "before\nin between\nafter"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	s.Close()
}

// TestScreenBecomesNarrower checks that all rows of the dashboard are removed if the terminal has become so narrow that
// a line takes two rows.
func TestScreenBecomesNarrower(t *testing.T) {
	s := NewScreen(nil, nil)
	s.shown = []string{strings.Repeat("a", 39), "b", ""}
	if got := s.erase(80); got != "\r\x1b[3A\x1b[J" {
		t.Errorf("%q", got)
	}
	if got := s.erase(20); got != "\r\x1b[4A\x1b[J" {
		t.Errorf("%q at 20 columns", got)
	}
}

// TestScreenOfFewLines checks that only the first lines of a dashboard are drawn if it has more lines than the
// terminal. The cursor could not move to lines above the first row of the terminal to remove them.
func TestScreenOfFewLines(t *testing.T) {
	term := &terminal{width: 20}
	s := NewScreen(term, func() (int, int) { return 20, 3 })
	s.Show(func(int) []string { return []string{"1", "2", "3", "4"} })
	waitFor(t, "the first frame", func() bool { return term.String() == "1\n2" })
	s.Close()
	if got := term.String(); got != "" {
		t.Errorf("%q is left", got)
	}
}

// TestScreenOfManyWriters checks that every line of several concurrent writers is written, and that writers and the
// dashboard do not deadlock.
func TestScreenOfManyWriters(t *testing.T) {
	term := &terminal{width: 80}
	s := NewScreen(term, term.size)
	r := NewRun()
	r.Plan("model", map[string]int64{"f": 1000})
	r.Begin()
	s.Show(func(width int) []string { return r.Snapshot().Lines(width) })
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			device := fmt.Sprint("device:", w)
			r.DeviceReady(device)
			for i := range 50 {
				r.Add(Batch{Device: device, File: "f", Sequences: 1, Tokens: 10, Budget: 10, Bytes: 1})
				fmt.Fprintln(s, "line", w, i)
			}
		})
	}
	writers.Wait()
	s.Close()
	if got := strings.Count(term.String(), "line"); got != 200 || len(term.rows) != 200 {
		t.Errorf("%d lines in %d rows", got, len(term.rows))
	}
}
