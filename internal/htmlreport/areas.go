package htmlreport

import (
	"fmt"
	"math"
	"strings"
	"time"

	"seqembed/internal/digits"
)

// Areas is a chart of rates over time. Each series, such as a device, is an area that is stacked on the area of the
// series before it.
type Areas struct {
	Title, Text string
	Unit        string        // unit of the amounts, such as tokens
	Width       time.Duration // width of an interval
	Time        time.Duration // end of the last interval, which may be shorter than Width
	Names       []string
	Amounts     [][]float64 // by series and interval; all series have the same number of intervals
}

// drawnIntervals is the largest number of intervals in a drawing. With 80, an interval is about six pixels wide.
const drawnIntervals = 80

func (a Areas) draw() drawing {
	d := drawing{frame: plot, Title: a.Title, Text: a.Text, YLabel: a.Unit + " per second"}
	if len(a.Amounts) == 0 || len(a.Amounts[0]) == 0 || a.Time <= 0 {
		return d
	}
	rates, width := a.rates()
	highest := 0.0
	for i := range rates[0] {
		sum := 0.0
		for _, r := range rates {
			sum += r[i]
		}
		highest = max(highest, sum)
	}
	if highest == 0 {
		return d
	}
	unit, name := timeUnit(a.Time)
	d.XLabel = "time in " + name
	x, y := d.across(0, float64(a.Time)/float64(unit)), d.up(0, highest*1.05)
	d.X, d.Y = x.ticks(6), y.ticks(5)
	edge := func(i int) float64 { return x.at(float64(min(time.Duration(i)*width, a.Time)) / float64(unit)) }
	below := make([]float64, len(rates[0]))
	for n, r := range rates {
		var outline, back strings.Builder
		for i := range r {
			fmt.Fprintf(&back, "H%.1fV%.1f", edge(len(r)-i), y.at(below[len(r)-1-i]))
		}
		for i, v := range r {
			below[i] += v
			fmt.Fprintf(&outline, "V%.1fH%.1f", y.at(below[i]), edge(i+1))
		}
		path := fmt.Sprintf("M%.1f %.1f%s%sZ", edge(0), y.at(0), outline.String(), back.String())
		d.Shapes = append(d.Shapes, shape{Class: series(n), Path: path})
		d.Legend = append(d.Legend, entry{series(n), a.Names[n]})
	}
	for i := range below {
		d.Shapes = append(d.Shapes, shape{Class: "hover", Path: box(edge(i), float64(d.Top), edge(i+1), float64(d.Bottom)), Tip: a.tip(rates, i, width)})
	}
	return d
}

// rates returns the amounts per second of each series, and the width of the intervals. It joins neighbouring intervals
// if there are more than drawnIntervals.
func (a Areas) rates() (rates [][]float64, width time.Duration) {
	n := len(a.Amounts[0])
	joined := (n + drawnIntervals - 1) / drawnIntervals
	width = a.Width * time.Duration(joined)
	for _, amounts := range a.Amounts {
		r := make([]float64, (n+joined-1)/joined)
		for i, v := range amounts {
			r[i/joined] += v
		}
		for i := range r {
			end := min(time.Duration(i+1)*width, a.Time)
			if took := end - time.Duration(i)*width; took > 0 {
				r[i] /= took.Seconds()
			}
		}
		rates = append(rates, r)
	}
	return rates, width
}

// tip returns the text that the chart shows when the pointer is over interval i: its time and the rate of each series.
func (a Areas) tip(rates [][]float64, i int, width time.Duration) string {
	unit, name := timeUnit(a.Time)
	at := func(t time.Duration) string { return fmt.Sprintf("%.4g", float64(min(t, a.Time))/float64(unit)) }
	lines := []string{fmt.Sprintf("%s to %s %s", at(time.Duration(i)*width), at(time.Duration(i+1)*width), name)}
	sum := 0.0
	for n, r := range rates {
		sum += r[i]
		lines = append(lines, fmt.Sprintf("%s: %s", a.Names[n], digits.Group(int64(math.Round(r[i])))))
	}
	if len(rates) > 1 {
		lines = append(lines, "together: "+digits.Group(int64(math.Round(sum))))
	}
	return strings.Join(lines, "\n") + " " + a.Unit + " per second"
}

// timeUnit returns the unit for an axis of time that ends at t.
func timeUnit(t time.Duration) (unit time.Duration, name string) {
	switch {
	case t < time.Second:
		return time.Millisecond, "milliseconds"
	case t < 3*time.Minute:
		return time.Second, "seconds"
	case t < 3*time.Hour:
		return time.Minute, "minutes"
	}
	return time.Hour, "hours"
}
