package main

import (
	"io"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// bar is one model's line at the bottom of a terminal.
type bar struct {
	container *mpb.Progress
	line      *mpb.Bar
	total     int64
}

// newBar draws a bar of total bytes; without a bar's shape where the total is
// not known. beside gives what stands on both sides.
func newBar(terminal io.Writer, name string, total int64, known bool, beside func() (left, right string)) *bar {
	b := &bar{container: mpb.New(mpb.WithOutput(terminal), mpb.WithAutoRefresh()), total: max(total, 1)}
	shape := mpb.BarFillerBuilder(mpb.BarStyle())
	if !known {
		shape = mpb.NopStyle()
	}
	b.line = b.container.New(b.total, shape,
		mpb.PrependDecorators(decor.Name(name+" "), decor.Any(func(decor.Statistics) string { left, _ := beside(); return left })),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { _, right := beside(); return right })))
	return b
}

// lines writes above the bar.
func (b *bar) lines() io.Writer { return b.container }

// set moves the bar. It is full only at the end.
func (b *bar) set(done int64) { b.line.SetCurrent(min(done, b.total-1)) }

// end leaves the bar on the screen, full when everything is done.
func (b *bar) end(complete bool) {
	if complete {
		b.line.SetCurrent(b.total)
	} else {
		b.line.Abort(false)
	}
	b.container.Wait()
}
