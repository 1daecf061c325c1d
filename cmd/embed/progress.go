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

// tickEvery is the time between two log lines about the progress if there is no bar.
const tickEvery = 15 * time.Second

// progress shows the progress of a run: as a bar on a terminal, or in log lines. It implements pool.Observer.
type progress struct {
	settings *settings
	plain    *slog.Logger // the log if there is no bar
	terminal io.Writer    // the terminal for bars; nil if there is none

	// The bar reads the counts while it draws, so a goroutine that holds mu must not wait for the bar.
	mu     sync.Mutex
	log    *slog.Logger   // plain, or a log that writes above the bar
	bar    *bar           // nil if there is none
	inside func() float64 // returns the part of a long batch that has been computed; nil if there is none
	counts
}

// counts is the progress of one model.
type counts struct {
	config          transformer.Config
	files, finished int
	left            map[string]int64 // by input: bytes on disk that are not embedded yet; without inputs that have finished or failed
	sized           bool             // whether the size of every input is known
	allSize         int64            // bytes on disk of all inputs, except pipes
	allDone         int64
	computed        int64 // bytes embedded in this run
	sequences       int64
	tokens          int64
	flops           float64       // FLOPs of all batches
	busy            time.Duration // time of all batches, added over all devices
	began           time.Time     // time when the first device was ready
	told            time.Time     // time of the last log line about the progress
}

func newProgress(s *settings, log *slog.Logger, stderr io.Writer) *progress {
	return &progress{settings: s, plain: log, log: log, terminal: s.terminal(stderr)}
}

// terminal returns stderr if bars may be drawn on it, and nil otherwise.
func (s *settings) terminal(stderr io.Writer) io.Writer {
	if f, ok := stderr.(*os.File); ok && !s.quiet && !s.noProgress && s.logFormat == "text" && term.IsTerminal(int(f.Fd())) {
		return stderr
	}
	return nil
}

// begin starts the display of one model's progress over files.
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
	// Log lines now appear above the bar.
	if log, err := newLog(p.settings, p.bar.lines()); err == nil {
		p.log = log
	}
}

// interrupted logs that a signal has arrived, and that the batches in flight are finished within the grace period.
func (p *progress) interrupted() {
	if p.terminal != nil {
		// The terminal has written ^C on the line of the bar.
		_, _ = io.WriteString(p.terminal, "\r")
	}
	p.logger().Warn("interrupted: finishing the batches in flight; a second signal ends the run at once", "at_most", grace)
}

// end removes the display of one model. Calling it twice has no effect.
func (p *progress) end() {
	p.mu.Lock()
	bar, complete := p.bar, p.finished == p.files
	p.bar, p.log = nil, p.plain
	p.mu.Unlock()
	if bar != nil {
		bar.end(complete)
	}
}

// beside returns the text to the left and to the right of the bar.
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

// perSecond returns the tokens per second since the first device was ready.
func (c *counts) perSecond() int64 {
	if c.began.IsZero() {
		return 0
	}
	return int64(float64(c.tokens) / max(time.Since(c.began).Seconds(), 1e-3))
}

// remaining estimates the remaining time from the speed of this run.
func (c *counts) remaining() (time.Duration, bool) {
	if !c.sized || c.computed == 0 || c.allDone >= c.allSize {
		return 0, false
	}
	perByte := float64(time.Since(c.began)) / float64(c.computed)
	return time.Duration(perByte * float64(c.allSize-c.allDone)).Round(time.Second), true
}

// settle counts a file that has finished, failed or been skipped.
func (p *progress) settle(path string) {
	p.mu.Lock()
	p.finished++
	p.allDone += p.left[path]
	delete(p.left, path) // batches of a failed file may still follow
	p.mu.Unlock()
	p.draw()
}

// draw updates the bar from the counts.
func (p *progress) draw() {
	p.mu.Lock()
	bar, done := p.bar, p.allDone
	p.mu.Unlock()
	if bar != nil {
		bar.set(done)
	}
}

// logger returns the current log: one that writes above the bar, or plain.
func (p *progress) logger() *slog.Logger {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log
}

// DeviceOpening logs that a device begins to load weights.
func (p *progress) DeviceOpening(device string) {
	p.logger().Info("loading weights", "device", device)
}

// DeviceReady logs how long loading took. Rates are measured from the moment when the first device is ready.
func (p *progress) DeviceReady(device string, took time.Duration) {
	p.logger().Info("weights are loaded", "device", device, "took", took.Round(time.Millisecond))
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.began.IsZero() {
		p.began = time.Now()
	}
}

// DeviceLost logs a warning that the other devices continue alone.
func (p *progress) DeviceLost(device string, err error) {
	p.logger().Warn("the device is lost, the others go on", "device", device, "error", oneLine(err))
}

// FileStarted logs the device whose reader has started a file.
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
	// The sequences of a batch have similar lengths, so the sequence of mean length is a good estimate for each of
	// them.
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

// LongRecord logs a long record and the time that it will take. The time follows from the rate so far or, at the
// beginning, from the rate of the trial.
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

// minutes returns a duration in whole minutes, such as "12 minutes".
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

// watch shows the progress inside a long batch until stop is called. If there is a bar, the progress stands beside it;
// otherwise it is a log line every tickEvery. The function done returns the part of the batch's arithmetic that has
// been computed.
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

// tellInside logs the progress inside a long batch if there is no bar. done is the part that has been computed since
// the time since.
func (p *progress) tellInside(done float64, since time.Duration) {
	p.mu.Lock()
	bar := p.bar
	p.mu.Unlock()
	if bar != nil {
		return
	}
	line := []any{"percent", int(100 * done)}
	if done > 0.01 { // otherwise the estimate is too rough
		line = append(line, "left", minutes(time.Duration(float64(since)*(1-done)/done)))
	}
	p.logger().Info("progress in the long record", line...)
}

// BudgetHalved logs a warning that batches get smaller.
func (p *progress) BudgetHalved(device string, tokens int, err error) {
	p.logger().Warn("out of memory: batches get smaller", "device", device, "tokens", tokens, "error", oneLine(err))
}

// RecordSkipped logs a warning with the reason.
func (p *progress) RecordSkipped(path, id string, line int64, err error) {
	p.logger().Warn("record skipped", "input", path, "record", id, "line", line, "error", oneLine(err))
}

// FileSkipped counts a file as settled and logs that an earlier run has made its outputs.
func (p *progress) FileSkipped(path string) {
	p.settle(path)
	p.logger().Info("complete since an earlier run", "input", path)
}

// FileFinished counts a file as settled and logs its output. It names the first records that were truncated or skipped.
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
	if f.Overflows > 0 {
		p.logger().Warn("values beyond the range of float16 became infinities: --dtype-out fp32 keeps them", "input", f.Path, "values", f.Overflows)
	}
	for _, skip := range f.Examples {
		p.logger().Warn("record skipped", "input", f.Path, "record", skip.ID, "line", skip.Line, "reason", skip.Reason, "detail", skip.Detail)
	}
}

// FileFailed counts a file as settled and logs its error with the flags that help.
func (p *progress) FileFailed(f pool.Failure) {
	p.settle(f.Path)
	p.logger().Error(oneLine(withHint(f.Err)), "input", f.Path)
}

// bar is the line for one model at the bottom of a terminal.
type bar struct {
	container *mpb.Progress
	line      *mpb.Bar
	total     int64
}

// newBar draws a bar for total bytes. If known is false, total is unknown and newBar draws only a line of text. The
// function beside returns the text to the left and to the right of the bar.
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

// lines returns a writer for lines above the bar.
func (b *bar) lines() io.Writer { return b.container }

// set shows the given number of bytes in the bar. Only end makes the bar full.
func (b *bar) set(done int64) { b.line.SetCurrent(min(done, b.total-1)) }

// end leaves the bar on the screen. If complete is set, end makes it full.
func (b *bar) end(complete bool) {
	if complete {
		b.line.SetCurrent(b.total)
	} else {
		b.line.Abort(false)
	}
	b.container.Wait()
}
