package htmlreport

import (
	"fmt"
	"math"
	"slices"

	"seqembed/internal/digits"
)

// Lengths counts lengths in classes. A class is a range of lengths: there are 32 classes between a length and its
// double, but below 46 each length is a class. The zero value is empty.
type Lengths struct{ counts, marked []int64 }

// classesPerDoubling is the number of classes between a length of at least 46 and its double.
const classesPerDoubling = 32

// classes has the least length of each class. The last length is 2⁴⁰.
var classes = func() (list []int) {
	for i := range 40*classesPerDoubling + 1 {
		list = append(list, int(math.Round(math.Pow(2, float64(i)/classesPerDoubling))))
	}
	return slices.Compact(list)
}()

// Add counts a length. Marked lengths, such as those of truncated records, are drawn in another color.
func (l *Lengths) Add(length int, marked bool) {
	class, found := slices.BinarySearch(classes, length)
	if !found {
		class--
	}
	class = min(max(class, 0), len(classes)-2) // classes does not say where the last class ends
	l.grow(class + 1)
	l.counts[class]++
	if marked {
		l.marked[class]++
	}
}

// grow makes room for the counts of at least n classes.
func (l *Lengths) grow(n int) {
	if more := n - len(l.counts); more > 0 {
		l.counts = append(l.counts, make([]int64, more)...)
		l.marked = append(l.marked, make([]int64, more)...)
	}
}

// Merge adds the counts of other to those of l.
func (l *Lengths) Merge(other *Lengths) {
	l.grow(len(other.counts))
	for i := range other.counts {
		l.counts[i] += other.counts[i]
		l.marked[i] += other.marked[i]
	}
}

// Histogram is a chart of lengths. Its horizontal axis is logarithmic.
type Histogram struct {
	Title, Text  string
	Lengths      Lengths
	Limit        int    // a length that is drawn as a line; 0 means no line
	Plain, Mark  string // names of the unmarked and of the marked lengths in the legend
	Unit, XLabel string // unit of the counts, such as records, and label of the axis of lengths
}

// bar is a bar of a histogram. It counts the lengths that are at least from and less than to.
type bar struct {
	from, to  int
	n, marked int64 // number of all lengths, and of marked lengths
}

// drawnBars is the largest number of bars in a drawing.
const drawnBars = 40

// bars returns the bars of a histogram from the shortest to the longest length. If there are more than drawnBars
// classes of lengths, it joins neighbouring classes.
func (l *Lengths) bars() (list []bar) {
	occupied := func(n int64) bool { return n > 0 }
	first := slices.IndexFunc(l.counts, occupied)
	if first < 0 {
		return nil
	}
	end := len(l.counts) // Add and Merge append no empty class at the end
	joined := (end - first + drawnBars - 1) / drawnBars
	for i := first; i < end; i += joined {
		b := bar{from: classes[i], to: classes[min(i+joined, end)]}
		for j := i; j < min(i+joined, end); j++ {
			b.n, b.marked = b.n+l.counts[j], b.marked+l.marked[j]
		}
		list = append(list, b)
	}
	return list
}

func (h Histogram) draw() drawing {
	d := drawing{frame: plot, Title: h.Title, Text: h.Text, XLabel: h.XLabel, YLabel: h.Unit}
	bars := h.Lengths.bars()
	if len(bars) == 0 {
		return d
	}
	highest, marked := int64(0), int64(0)
	for _, b := range bars {
		highest, marked = max(highest, b.n), marked+b.marked
	}
	low, high := float64(bars[0].from), float64(bars[len(bars)-1].to)
	if high < 2*low { // without more room a single bar would fill the chart
		low, high = low/1.4, high*1.4
	}
	x, y := d.across(low, high), d.up(0, float64(highest)*1.05)
	x.log = true
	d.X, d.Y = x.ticks(6), y.ticks(5)
	if highest < 5 {
		d.Y = d.up(0, float64(highest)*1.05).ticks(int(highest) + 1) // ticks at whole numbers only
	}
	for _, b := range bars {
		if b.n == 0 {
			continue
		}
		left, right := x.at(float64(b.from)), x.at(float64(b.to))
		if right-left > 4 {
			right-- // leaves a gap between bars
		}
		middle := y.at(float64(b.n - b.marked))
		if b.n > b.marked {
			d.Shapes = append(d.Shapes, shape{Class: "s0", Path: box(left, middle, right, float64(d.Bottom)), Tip: h.tip(b)})
		}
		if b.marked > 0 {
			d.Shapes = append(d.Shapes, shape{Class: "s1", Path: box(left, y.at(float64(b.n)), right, middle), Tip: h.tip(b)})
		}
	}
	if l := float64(h.Limit); l > low && l < high {
		d.Shapes = append(d.Shapes, shape{Class: "limit", Path: fmt.Sprintf("M%.1f %dV%d", x.at(l), d.Top, d.Bottom),
			Tip: fmt.Sprintf("limit: %s", digits.Group(int64(h.Limit)))})
	}
	if marked > 0 {
		d.Legend = []entry{{"s0", h.Plain}, {"s1", h.Mark}}
	}
	return d
}

// tip returns the text that the histogram shows when the pointer is over a bar.
func (h Histogram) tip(b bar) string {
	text := fmt.Sprintf("%s to %s", digits.Group(int64(b.from)), digits.Group(int64(b.to-1)))
	if b.to-1 == b.from {
		text = digits.Group(int64(b.from))
	}
	text += fmt.Sprintf(" letters: %s %s", digits.Group(b.n), h.Unit)
	if b.marked > 0 {
		text += fmt.Sprintf(", %s %s", digits.Group(b.marked), h.Mark)
	}
	return text
}
