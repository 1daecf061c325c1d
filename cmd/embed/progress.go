package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"seqembed/pool"
	"seqembed/transformer"
)

// tickEvery is how often a line tells the progress where there is no bar.
const tickEvery = 15 * time.Second

// progress shows a run: a bar on a terminal, log lines elsewhere. It implements pool.Observer.
type progress struct {
	settings *settings
	plain    *slog.Logger // where there is no bar
	terminal io.Writer    // nil where there is never one

	// The bar asks for the counts while it draws, so nobody who holds mu may wait for the bar.
	mu     sync.Mutex
	log    *slog.Logger   // plain, or above the bar
	bar    *bar           // nil where there is none
	inside func() float64 // the part of a long batch that has been done; nil where there is none
	counts
}

// counts is how far the run of one model has come.
type counts struct {
	config          transformer.Config
	files, finished int
	left            map[string]int64 // bytes on disk by input that are neither embedded nor settled otherwise
	sized           bool             // every input has a size
	allSize         int64            // bytes on disk of all inputs, those of pipes left out
	allDone         int64
	computed        int64 // bytes embedded now: what earlier runs did is not in it
	sequences       int64
	tokens          int64
	flops           float64       // of all batches
	busy            time.Duration // that they took, over all devices
	began           time.Time     // when the first device was ready
	told            time.Time     // when the last line told the progress
}

func newProgress(s *settings, log *slog.Logger, stderr io.Writer) *progress {
	p := &progress{settings: s, plain: log, log: log}
	if f, ok := stderr.(*os.File); ok && !s.quiet && !s.noProgress && s.logFormat == "text" && term.IsTerminal(int(f.Fd())) {
		p.terminal = stderr
	}
	return p
}

// begin starts the display of one model over files.
func (p *progress) begin(model string, config transformer.Config, files []pool.File) {
	p.plain.Info("embedding", "model", model, "files", len(files))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts = counts{config: config, files: len(files), sized: true, told: time.Now(), left: make(map[string]int64)}
	for _, f := range files {
		p.left[f.Path] = f.Size
		p.allSize += f.Size
		p.sized = p.sized && f.Size > 0
	}
	if p.terminal == nil {
		return
	}
	p.bar = newBar(p.terminal, model, p.allSize, p.sized, p.beside)
	// Log lines go above the bar from now on.
	if log, err := newLog(p.settings, p.bar.lines()); err == nil {
		p.log = log
	}
}

// interrupted answers a signal: the batches in flight are finished first, if they take no longer than the grace period.
func (p *progress) interrupted() {
	if p.terminal != nil {
		// The terminal has written ^C where the bar is about to move up from.
		_, _ = io.WriteString(p.terminal, "\r")
	}
	p.logger().Warn("interrupted: finishing the batches in flight; a second signal ends the run at once", "at_most", grace)
}

// end takes the display of one model down. It may be called again.
func (p *progress) end() {
	p.mu.Lock()
	bar, complete := p.bar, p.finished == p.files
	p.bar, p.log = nil, p.plain
	p.mu.Unlock()
	if bar != nil {
		bar.end(complete)
	}
}

// beside is the text on both sides of the bar.
func (p *progress) beside() (left, right string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	left = fmt.Sprintf("%d/%d files ", p.finished, p.files)
	if p.sized {
		right = fmt.Sprintf(" %3d%% ", p.percent())
	}
	right += fmt.Sprintf(" %s sequences  %s tokens/s", grouped(p.sequences), grouped(p.perSecond()))
	if remaining, ok := p.remaining(); ok {
		right += fmt.Sprintf("  %s left", remaining)
	}
	if p.inside != nil {
		right += fmt.Sprintf("  %.0f%% of a long record", 100*p.inside())
	}
	return left, right
}

func (c *counts) percent() int64 { return min(100, 100*c.allDone/max(c.allSize, 1)) }

// perSecond is the rate of tokens since the first device was ready.
func (c *counts) perSecond() int64 {
	if c.began.IsZero() {
		return 0
	}
	return int64(float64(c.tokens) / max(time.Since(c.began).Seconds(), 1e-3))
}

// remaining estimates how long the rest takes from what has been computed.
func (c *counts) remaining() (time.Duration, bool) {
	if !c.sized || c.computed == 0 || c.allDone >= c.allSize {
		return 0, false
	}
	perByte := float64(time.Since(c.began)) / float64(c.computed)
	return time.Duration(perByte * float64(c.allSize-c.allDone)).Round(time.Second), true
}

// settle counts a file that is dealt with, however that ended.
func (p *progress) settle(path string) {
	p.mu.Lock()
	p.finished++
	p.allDone += p.left[path]
	delete(p.left, path) // a batch of a file that failed may still come
	p.mu.Unlock()
	p.draw()
}

// draw moves the bar to where the counts are.
func (p *progress) draw() {
	p.mu.Lock()
	bar, done := p.bar, p.allDone
	p.mu.Unlock()
	if bar != nil {
		bar.set(done)
	}
}

// logger is the log of the moment: above the bar, or as it was.
func (p *progress) logger() *slog.Logger {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log
}

// DeviceOpening logs that weights are loaded onto a device from now on.
func (p *progress) DeviceOpening(device string) {
	p.logger().Info("loading weights", "device", device)
}

// DeviceReady logs how long that took. Rates count from the first device on.
func (p *progress) DeviceReady(device string, took time.Duration) {
	p.logger().Info("weights are loaded", "device", device, "took", took.Round(time.Millisecond))
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.began.IsZero() {
		p.began = time.Now()
	}
}

// DeviceLost warns that the other devices go on alone.
func (p *progress) DeviceLost(device string, err error) {
	p.logger().Warn("the device is lost, the others go on", "device", device, "error", oneLine(err))
}

// FileStarted logs the device whose reader has begun the file.
func (p *progress) FileStarted(path, device string) {
	p.logger().Debug("file started", "input", path, "device", device)
}

// BatchDone adds a batch to the progress of its file.
func (p *progress) BatchDone(b pool.Batch) {
	p.logger().Debug("batch", "device", b.Device, "input", b.Path, "sequences", b.Sequences, "tokens", b.Tokens, "took", b.Took.Round(time.Microsecond))
	p.mu.Lock()
	bytes := min(b.Bytes, p.left[b.Path])
	p.left[b.Path] -= bytes
	p.allDone += bytes
	p.computed += b.Bytes
	p.sequences += int64(b.Sequences)
	p.tokens += int64(b.Tokens)
	p.busy += b.Took
	// Neighbours in length share a batch, so the mean length stands for all.
	p.flops += float64(b.Sequences) * p.config.FLOPs(b.Tokens/b.Sequences)
	tell := p.bar == nil && time.Since(p.told) >= tickEvery
	if tell {
		p.told = time.Now()
	}
	line := []any{"files", fmt.Sprintf("%d/%d", p.finished, p.files), "sequences", p.sequences, "tokens_per_second", p.perSecond()}
	if remaining, ok := p.remaining(); ok {
		line = append(line, "percent", p.percent(), "left", remaining)
	}
	p.mu.Unlock()
	if tell {
		p.logger().Info("progress", line...)
	}
	p.draw()
}

// LongRecord announces a long record with the time that it will take, from the rate so far or that of the trial.
func (p *progress) LongRecord(r pool.LongRecord) {
	p.mu.Lock()
	flops, took := p.flops, p.busy
	if flops == 0 {
		flops, took = p.config.FLOPs(r.TrialTokens), r.TrialTook
	}
	line := []any{"input", r.Path, "record", r.ID, "tokens", r.Tokens}
	if flops > 0 && took > 0 {
		about := time.Duration(p.config.FLOPs(r.Tokens) / flops * float64(took))
		line = append(line, "about", minutes(about))
	}
	p.mu.Unlock()
	p.logger().Warn("a very long record: its time grows with the square of its length; --long window embeds it in pieces", line...)
}

// minutes writes a duration as people plan with it: "12 minutes".
func minutes(d time.Duration) string {
	switch m := d.Minutes(); {
	case m < 1:
		return "less than a minute"
	case m < 1.5:
		return "a minute"
	default:
		return fmt.Sprintf("%s minutes", grouped(int64(m+0.5)))
	}
}

// watch shows the progress inside a long batch until stop is called: beside the bar, or in a line from time to time.
// done is the part of its arithmetic that has been done.
func (p *progress) watch(done func() float64) (stop func()) {
	p.mu.Lock()
	p.inside = done
	p.mu.Unlock()
	began, ended := time.Now(), make(chan struct{})
	var ticking sync.WaitGroup
	ticking.Go(func() {
		ticks := time.NewTicker(tickEvery)
		defer ticks.Stop()
		for {
			select {
			case <-ticks.C:
				p.tellInside(done(), time.Since(began))
			case <-ended:
				return
			}
		}
	})
	return func() {
		close(ended)
		ticking.Wait()
		p.mu.Lock()
		p.inside = nil
		p.mu.Unlock()
	}
}

// tellInside logs the progress inside a long batch where there is no bar.
func (p *progress) tellInside(done float64, since time.Duration) {
	p.mu.Lock()
	bar := p.bar
	p.mu.Unlock()
	if bar != nil {
		return
	}
	line := []any{"percent", int(100 * done)}
	if done > 0.01 { // before that the rest cannot be told
		line = append(line, "left", minutes(time.Duration(float64(since)*(1-done)/done)))
	}
	p.logger().Info("progress in the long record", line...)
}

func (p *progress) BudgetHalved(device string, tokens int, err error) {
	p.logger().Warn("out of memory: batches get smaller", "device", device, "tokens", tokens, "error", oneLine(err))
}

func (p *progress) RecordSkipped(path, id string, line int64, err error) {
	p.logger().Warn("record skipped", "input", path, "record", id, "line", line, "error", oneLine(err))
}

func (p *progress) FileSkipped(path string) {
	p.settle(path)
	p.logger().Info("complete since an earlier run", "input", path)
}

func (p *progress) FileFinished(f pool.FileReport) {
	p.settle(f.Path)
	p.logger().Info("file finished", "input", f.Path, "records", f.Records, "tokens", f.Tokens, "output", f.Outputs[0].Path)
	if f.Truncated > 0 {
		var first []string
		for _, cut := range f.Cut {
			first = append(first, fmt.Sprintf("%s (line %d, %d letters)", cut.ID, cut.Line, cut.Letters))
		}
		p.logger().Warn("records were truncated: --long window or --max-length uses more of them", "input", f.Path,
			"records", f.Truncated, "first", strings.Join(first, ", "))
	}
	for _, skip := range f.Examples {
		p.logger().Warn("record skipped", "input", f.Path, "record", skip.ID, "line", skip.Line, "reason", skip.Reason, "detail", skip.Detail)
	}
}

func (p *progress) FileFailed(f pool.Failure) {
	p.settle(f.Path)
	p.logger().Error(oneLine(withHint(f.Err)), "input", f.Path)
}

// bar is one model's line at the bottom of a terminal.
type bar struct {
	container *mpb.Progress
	line      *mpb.Bar
	total     int64
}

// newBar draws a bar of total bytes; without a bar's shape where the total is not known. beside gives the text on both
// sides.
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
