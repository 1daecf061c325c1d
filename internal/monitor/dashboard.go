package monitor

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/mattn/go-runewidth"

	"seqembed/internal/digits"
)

// Lines returns the dashboard for a terminal of the given width. It shows the run, its models, and the devices and the
// stages of the present model. If the width does not suffice, the least important fields are left out.
func (s Snapshot) Lines(width int) []string {
	lines := []string{s.runLine(width)}
	lines = append(lines, table(width, s.modelColumns())...)
	for _, m := range s.Models {
		if m.State == Loading || m.State == Computing {
			lines = append(lines, table(width, m.deviceColumns())...)
			lines = append(lines, m.stageLine(width))
		}
	}
	return lines
}

func (s Snapshot) runLine(width int) string {
	skipped, halvings := int64(0), 0
	for _, m := range s.Models {
		skipped, halvings = skipped+m.Skipped, halvings+m.Halvings
	}
	parts := []part{{"running " + duration(s.Elapsed), 0}}
	add := func(priority int, show bool, format string, args ...any) {
		if show {
			parts = append(parts, part{fmt.Sprintf(format, args...), priority})
		}
	}
	add(1, s.Left.known(), "%s left", map[bool]string{true: ">"}[s.LeftAtLeast]+duration(s.Left))
	add(2, s.FilesFailed > 0, "%d failed", s.FilesFailed)
	add(3, halvings > 0, "%d× out of memory", halvings)
	add(4, skipped > 0, "%s records skipped", digits.Group(skipped))
	return fit(width, parts)
}

func (s Snapshot) modelColumns() []column {
	c := newColumns("model", "", "done", "files", "sequences", "tokens/s", "left")
	for _, m := range s.Models {
		bar, percent, left := "", string(m.State), ""
		if m.State == Computing || m.State == Done {
			left = duration(m.Left)
			if m.Percent.known() {
				bar, percent = Bar(int64(m.Percent)), fmt.Sprintf("%.0f%%", m.Percent)
			}
		}
		c.row(m.Name, bar, percent, fmt.Sprintf("%d/%d", m.FilesDone, m.Files), digits.Group(m.Sequences), m.TokensPerSecond.grouped(), left)
	}
	c[0].least = 12
	return c.order(0, 6, 1, 2, 5, 4, 3)
}

func (m Model) deviceColumns() []column {
	c := newColumns("device", "file", "tokens/s", "mean", "sequences", "batch", "memory", "GPU", "temp", "power", "clock")
	for _, d := range m.Devices {
		file := filepath.Base(d.File)
		switch {
		case d.State != Computing:
			file = string(d.State)
		case d.File == "":
			file = ""
		}
		if d.LongPercent.known() {
			file = fmt.Sprintf("%.0f%% of a long record", d.LongPercent)
		}
		memory := dash
		if d.MemoryUsed.known() {
			memory = fmt.Sprintf("%.1f/%.1f GiB", d.MemoryUsed/(1<<30), d.MemoryTotal/(1<<30))
		}
		now := d.Now
		if d.State != Computing {
			now = unknown
		}
		c.row(d.Name, file, now.grouped(), d.TokensPerSecond.grouped(), digits.Group(d.Sequences), digits.Group(int64(d.Batch)), memory,
			d.Utilization.Text("%.0f%%"), d.Temperature.Text("%.0f°C"), d.Power.Text("%.0f W"), d.Clock.Text("%.0f MHz"))
	}
	c[1].least = 12
	return c.order(0, 3, 1, 4, 6, 7, 5, 2, 8, 9, 10)
}

func (m Model) stageLine(width int) string {
	var parts []part
	for i, s := range m.stages() {
		if s.waits().known() {
			parts = append(parts, part{fmt.Sprintf("%s waits %.0f%%", s.name, s.waits()), 2 + i})
		}
	}
	if m.HeldBackBy != "" {
		parts = append(parts, part{m.HeldBackBy + " holds back", 0})
	}
	if m.Fill.known() {
		parts = append(parts, part{fmt.Sprintf("batches %.0f%% full", m.Fill), 1})
	}
	return fit(width, parts)
}

// Table returns the lines of a table that is shown at the end of a run. For each model, the table has a row for each
// device that has computed anything. Table returns nil if there is no such device.
func (s Snapshot) Table() []string {
	c := newColumns("model", "device", "sequences", "tokens", "tokens/s", "computing", "waiting", "full", "GPU", "memory", "power")
	for _, m := range s.Models {
		for _, d := range m.Devices {
			if d.Sequences == 0 {
				continue
			}
			c.row(m.Name, d.Name, digits.Group(d.Sequences), digits.Group(d.Tokens), d.TokensPerSecond.grouped(), duration(d.Busy), duration(d.Waiting),
				m.Fill.Text("%.0f%%"), d.MeanUtilization.Text("%.0f%%"), (d.PeakMemory / (1 << 30)).Text("%.1f GiB"), d.MeanPower.Text("%.0f W"))
		}
	}
	if len(c[0].cells) == 0 {
		return nil
	}
	return table(120, c.order(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10))
}

// dash stands for an unknown value.
const dash = "-"

// Text formats a value as fmt.Sprintf does, or returns a dash if it is unknown.
func (v Value) Text(format string) string {
	if !v.known() {
		return dash
	}
	return fmt.Sprintf(format, float64(v))
}

func (v Value) grouped() string {
	if !v.known() {
		return dash
	}
	return digits.Group(int64(v))
}

// duration returns a number of seconds in the form 1h2m3s, or a dash if it is unknown.
func duration(seconds Value) string {
	if !seconds.known() {
		return dash
	}
	return time.Duration(float64(seconds) * float64(time.Second)).Round(time.Second).String()
}

// Bar draws a percentage as a bar of 20 characters.
func Bar(percent int64) string {
	const cells = 20
	full := int(min(max(percent, 0), 100)) * cells / 100
	return strings.Repeat("#", full) + strings.Repeat(".", cells-full)
}

// Fit joins texts to a line of at most width columns. If they are too long together, it leaves out the last texts. If
// the first text alone is too long, it is truncated.
func Fit(width int, texts ...string) string {
	var parts []part
	for i, t := range texts {
		parts = append(parts, part{t, i})
	}
	return fit(width, parts)
}

// part is a part of a line. The line leaves out the parts with the largest priorities first.
type part struct {
	text     string
	priority int
}

// fit joins the parts to a line of at most width columns. It leaves out parts, those with the largest priorities first,
// until the line fits. If one part is left, it is truncated.
func fit(width int, parts []part) string {
	for {
		line, worst := "", 0
		for i, p := range parts {
			line += "  " + p.text
			if p.priority > parts[worst].priority {
				worst = i
			}
		}
		line = strings.TrimPrefix(line, "  ")
		if len(parts) < 2 || runewidth.StringWidth(line) <= width {
			return runewidth.Truncate(line, max(width, 0), "…")
		}
		parts = append(parts[:worst:worst], parts[worst+1:]...)
	}
}

// column is a column of a table.
type column struct {
	title    string
	cells    []string
	priority int // columns with the largest priorities are left out first
	least    int // the column may shrink to this width; 0 means that it may not shrink
}

type columns []column

func newColumns(titles ...string) columns {
	c := make(columns, len(titles))
	for i, t := range titles {
		c[i].title = t
	}
	return c
}

func (c columns) row(cells ...string) {
	for i := range c {
		c[i].cells = append(c[i].cells, cells[i])
	}
}

// blankPriority is added to the priority of a column that has no value in any row. Such columns are left out before
// another column shrinks.
const blankPriority = 100

// order sets the priority of each column, and adds blankPriority for a column without values.
func (c columns) order(priorities ...int) columns {
	for i := range c {
		c[i].priority = priorities[i]
		if c[i].blank() {
			c[i].priority += blankPriority
		}
	}
	return c
}

// blank reports whether all cells of the column are empty or unknown.
func (c column) blank() bool {
	for _, cell := range c.cells {
		if cell != dash && cell != "" {
			return false
		}
	}
	return true
}

func (c column) width() int {
	width := runewidth.StringWidth(c.title)
	for _, cell := range c.cells {
		width = max(width, runewidth.StringWidth(cell))
	}
	return width
}

// table returns the lines of a table: a line of titles, and a line for each row. If the table is wider than width,
// columns shrink or are left out, see the fields least and priority of column. The first column and columns that may
// shrink are aligned to the left, all others to the right.
func table(width int, list []column) []string {
	var widths []int
	for {
		spare, worst, full := width+2, 0, -2
		widths = widths[:0]
		for i, c := range list {
			w := c.width()
			full += w + 2
			if c.least > 0 {
				w = min(w, c.least)
			}
			widths, spare = append(widths, w), spare-w-2
			if c.priority > list[worst].priority {
				worst = i
			}
		}
		if blank := list[worst].priority >= blankPriority; full <= width || spare >= 0 && !blank || len(list) == 1 {
			for i, c := range list {
				more := min(spare, c.width()-widths[i])
				widths[i], spare = widths[i]+more, spare-more
			}
			break
		}
		list = append(list[:worst:worst], list[worst+1:]...)
	}
	lines := make([]string, 1+len(list[0].cells))
	for i, c := range list {
		for row := range lines {
			cell := c.title
			if row > 0 {
				cell = c.cells[row-1]
			}
			cell = runewidth.Truncate(cell, max(widths[i], 0), "…")
			if i == 0 || c.least > 0 {
				cell = runewidth.FillRight(cell, widths[i])
			} else {
				cell = runewidth.FillLeft(cell, widths[i])
			}
			if i > 0 {
				cell = "  " + cell
			}
			lines[row] += cell
		}
	}
	for row := range lines {
		lines[row] = strings.TrimRight(lines[row], " ")
	}
	return lines
}
