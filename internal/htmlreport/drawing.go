package htmlreport

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"seqembed/internal/digits"
)

// drawing is a chart as the HTML template needs it: titles, and shapes in the coordinates of an SVG image.
type drawing struct {
	frame
	Title, Text    string
	XLabel, YLabel string
	X, Y           []tick
	Shapes         []shape
	Legend         []entry
}

// frame contains the size of a chart, the edges of the area within its axes, and the places of its labels, in pixels.
type frame struct {
	Width, Height, Left, Right, Top, Bottom, BelowAxis, BesideAxis, MiddleX, LabelY int
	Tall                                                                            bool
}

// plot is the frame of most charts, and tall is that of a Scatter, which takes two rows of the page.
var (
	plot = frame{Width: 560, Height: 300, Left: 64, Right: 536, Top: 26, Bottom: 244, BelowAxis: 263, BesideAxis: 56, MiddleX: 300, LabelY: 288}
	tall = frame{Width: 560, Height: 580, Left: 64, Right: 536, Top: 26, Bottom: 524, BelowAxis: 543, BesideAxis: 56, MiddleX: 300, LabelY: 568, Tall: true}
)

// tick is a grid line of an axis: its coordinate and its label.
type tick struct{ At, Text string }

// shape is an element of the SVG image: a path, or a circle if Path is empty. Tip is shown when the pointer is over it.
type shape struct{ Class, Path, X, Y, R, Tip string }

// entry is a line of a legend: the CSS class of a color, and a text.
type entry struct{ Class, Text string }

// scale maps the values of an axis, or their logarithms, to coordinates.
type scale struct {
	low, high float64
	from, to  int
	log       bool
}

func (s scale) at(v float64) float64 {
	low, high := s.low, s.high
	if s.log {
		v, low, high = math.Log(v), math.Log(low), math.Log(high)
	}
	return float64(s.from) + (v-low)/(high-low)*float64(s.to-s.from)
}

// across and up return the scales of the horizontal and of the vertical axis for values from low to high.
func (f frame) across(low, high float64) scale { return scale{low, high, f.Left, f.Right, false} }
func (f frame) up(low, high float64) scale     { return scale{low, high, f.Bottom, f.Top, false} }

// ticks returns ticks at round values: about n of them if the scale is linear.
func (s scale) ticks(n int) (list []tick) {
	if s.log {
		if list = s.decades(1, 2, 5); len(list) > 9 {
			list = s.decades(1)
		}
		if len(list) > 2 {
			return list
		}
		list = nil
	}
	step := roundStep((s.high - s.low) / float64(n))
	for i := math.Ceil(s.low/step - 1e-9); i*step <= s.high+step*1e-9; i++ {
		list = append(list, tick{px(s.at(i * step)), short(i*step, step)})
	}
	return list
}

// decades returns ticks at the given multiples of the powers of ten.
func (s scale) decades(multiples ...float64) (list []tick) {
	for power := math.Pow(10, math.Floor(math.Log10(s.low))); power <= s.high; power *= 10 {
		for _, m := range multiples {
			if v := m * power; v >= s.low && v <= s.high {
				list = append(list, tick{px(s.at(v)), short(v, v)})
			}
		}
	}
	return list
}

// roundStep returns the least number that is at least step and is 1, 2 or 5 times a power of ten.
func roundStep(step float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(step)))
	for _, m := range []float64{1, 2, 5} {
		if m*power >= step*(1-1e-9) {
			return m * power
		}
	}
	return 10 * power
}

// short formats a value of an axis whose ticks are step apart, for example 1500000 as 1.5M and 20000 as 20k.
func short(v, step float64) string {
	suffix := ""
	switch a := math.Abs(v); {
	case a >= 1e9 && step >= 1e7:
		v, step, suffix = v/1e9, step/1e9, "G"
	case a >= 1e6 && step >= 1e4:
		v, step, suffix = v/1e6, step/1e6, "M"
	case a >= 1e4 && step >= 10:
		v, step, suffix = v/1e3, step/1e3, "k"
	}
	decimals := 0
	if step < 1 {
		decimals = int(math.Ceil(-math.Log10(step) - 1e-9))
	}
	text := strconv.FormatFloat(v, 'f', decimals, 64)
	if decimals == 0 {
		text = digits.Group(int64(math.Round(v)))
	}
	if strings.Trim(text, "-0.") == "" {
		text = "0"
	}
	return text + suffix
}

// px formats a coordinate for SVG.
func px(v float64) string { return strconv.FormatFloat(v, 'f', 1, 64) }

// box returns the SVG path of a rectangle.
func box(left, top, right, bottom float64) string {
	return fmt.Sprintf("M%.1f %.1fH%.1fV%.1fH%.1fZ", left, top, right, bottom, left)
}

// series returns the CSS class that gives series n of a chart its color, where n begins with 0. All series from n =
// MaxColors on share a class.
func series(n int) string { return fmt.Sprintf("s%d", min(n, MaxColors)) }

// MaxColors is the number of series or groups of a chart that get a color of their own. All others are gray.
const MaxColors = 8

// share returns the length of the bar in a cell of a table: the number in a cell such as "12.5%", but at most 100. It
// returns 0 if the cell is not a number.
func share(cell string) string {
	v, err := strconv.ParseFloat(strings.TrimSuffix(cell, "%"), 64)
	if err != nil {
		v = 0
	}
	return strconv.FormatFloat(min(v, 100), 'f', -1, 64)
}
