package monitor

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/mattn/go-runewidth"
)

// drawEvery is the time between two frames of a dashboard.
const drawEvery = 250 * time.Millisecond

// Screen is a terminal with a dashboard below the lines that are written to it. Before Show and after Close there is no
// dashboard, and Write only passes on the lines.
type Screen struct {
	w    io.Writer
	size func() (width, height int) // size of the terminal in characters

	mu     sync.Mutex
	frame  func(width int) []string // returns the lines of the dashboard; nil if there is none
	shown  []string                 // the dashboard on the terminal; the cursor is in the line below it
	closed chan struct{}            // closed to end the goroutine that draws; nil without a dashboard
	drawn  sync.WaitGroup
}

// NewScreen returns a screen that writes to w. size returns the number of columns and lines of the terminal.
func NewScreen(w io.Writer, size func() (width, height int)) *Screen {
	return &Screen{w: w, size: size}
}

// Show begins to draw a dashboard every drawEvery. The function frame returns the lines of the dashboard for a terminal
// of the given width. frame must not write to the Screen.
func (s *Screen) Show(frame func(width int) []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed != nil {
		return
	}
	closed := make(chan struct{})
	s.frame, s.closed = frame, closed
	s.drawn.Go(func() {
		ticks := time.NewTicker(drawEvery)
		defer ticks.Stop()
		for {
			s.update("")
			select {
			case <-ticks.C:
			case <-closed:
				return
			}
		}
	})
}

// Close removes the dashboard from the terminal. A second call has no effect.
func (s *Screen) Close() {
	s.mu.Lock()
	closed := s.closed
	s.frame, s.closed = nil, nil
	s.mu.Unlock()
	if closed == nil {
		return
	}
	close(closed)
	s.drawn.Wait()
	s.update("")
}

// Write writes whole lines above the dashboard.
func (s *Screen) Write(p []byte) (int, error) { return len(p), s.update(string(p)) }

// update replaces the dashboard on the terminal by text and, below the text, the present dashboard. It writes to the
// terminal in one call.
func (s *Screen) update(text string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.frame == nil && len(s.shown) == 0 && text == "" {
		return nil
	}
	width, height := 0, 0
	if s.frame != nil || len(s.shown) > 0 {
		width, height = s.size()
	}
	var b strings.Builder
	b.WriteString(s.erase(width))
	b.WriteString(text)
	s.shown = nil
	if s.frame != nil && width > 1 {
		s.shown = s.frame(width - 1) // a character in the last column would make some terminals begin a new line
	}
	s.shown = s.shown[:max(0, min(len(s.shown), height-1))]
	for i, line := range s.shown {
		s.shown[i] = runewidth.Truncate(line, width-1, "…")
		b.WriteString(s.shown[i] + "\n")
	}
	_, err := io.WriteString(s.w, b.String())
	return err
}

// erase returns the control sequence that removes the dashboard from a terminal of the given width. If the terminal has
// become narrower since the dashboard was drawn, a line of the dashboard takes several rows.
func (s *Screen) erase(width int) string {
	rows := 0
	for _, line := range s.shown {
		rows += 1 + max(0, runewidth.StringWidth(line)-1)/max(width, 1)
	}
	if rows == 0 {
		return ""
	}
	return fmt.Sprintf("\r\x1b[%dA\x1b[J", rows)
}
