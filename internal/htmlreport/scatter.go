package htmlreport

import (
	"math"
	"math/rand/v2"
)

// Scatter is a chart of points in groups.
type Scatter struct {
	Title, Text    string
	XLabel, YLabel string
	Groups         []Group // all groups from the ninth on share a color
}

// Group is points of one color.
type Group struct {
	Name   string
	Points []Point
}

// Point is a point with the text that is shown when the pointer is over it.
type Point struct {
	X, Y float64
	Tip  string
}

func (s Scatter) draw() drawing {
	d := drawing{frame: tall, Title: s.Title, Text: s.Text, XLabel: s.XLabel, YLabel: s.YLabel}
	left, right, low, high := math.Inf(1), math.Inf(-1), math.Inf(1), math.Inf(-1)
	points := 0
	for i, g := range s.Groups {
		for _, p := range g.Points {
			left, right, low, high = min(left, p.X), max(right, p.X), min(low, p.Y), max(high, p.Y)
		}
		points += len(g.Points)
		if i <= MaxColors {
			d.Legend = append(d.Legend, entry{series(i), g.Name})
		}
	}
	if points == 0 {
		return d
	}
	left, right = widened(left, right)
	low, high = widened(low, high)
	x, y := d.across(left, right), d.up(low, high)
	d.X, d.Y = x.ticks(6), y.ticks(5)
	radius := "3.5"
	if points > 500 {
		radius = "2.5"
	}
	for i, g := range s.Groups {
		for _, p := range g.Points {
			d.Shapes = append(d.Shapes, shape{Class: series(i), X: px(x.at(p.X)), Y: px(y.at(p.Y)), R: radius, Tip: p.Tip})
		}
	}
	// The points are drawn in a random order, so that no group hides another.
	rand.New(rand.NewPCG(1, 1)).Shuffle(len(d.Shapes), func(i, j int) { d.Shapes[i], d.Shapes[j] = d.Shapes[j], d.Shapes[i] })
	return d
}

// widened returns a range with some room at both ends.
func widened(low, high float64) (float64, float64) {
	room := 0.04 * (high - low)
	if room == 0 {
		room = max(math.Abs(low), 1)
	}
	return low - room, high + room
}
