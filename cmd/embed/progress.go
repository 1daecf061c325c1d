package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"seqembed/pool"
	"seqembed/transformer"
)

// tickEvery is how often a line tells the progress where there is no bar.
const tickEvery = 15 * time.Second

// progress shows what a run does: a bar on a terminal, log lines elsewhere.
// It implements pool.Observer.
type progress struct {
	settings *settings
	plain    *slog.Logger // where there is no bar
	terminal io.Writer    // nil where there is never one

	// The bar asks for the counts while it draws, so nobody who holds mu may
	// wait for the bar.
	mu  sync.Mutex
	log *slog.Logger // plain, or above the bar
	bar *bar         // nil where there is none
	counts
}

// counts is how far the run of one model has come.
type counts struct {
	config          transformer.Config
	files, finished int
	size            map[string]int64 // bytes on disk by input, those of pipes left out
	done            map[string]int64 // of them, embedded or settled otherwise
	sized           bool             // every input has a size
	allSize         int64            // the sums of both
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
	p.counts = counts{config: config, files: len(files), sized: true, told: time.Now(),
		size: make(map[string]int64), done: make(map[string]int64)}
	for _, f := range files {
		p.size[f.Path] = f.Size
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

// beside is what stands on both sides of the bar.
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
	p.allDone += p.size[path] - p.done[path]
	delete(p.size, path) // a batch of a file that failed may still come
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
	if p.size[b.Path] > 0 {
		p.done[b.Path] += b.Bytes
		p.allDone += b.Bytes
	}
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

// LongRecord announces what a long record costs, and about how long it takes
// once the speed of the device is known.
func (p *progress) LongRecord(path, id string, tokens int) {
	p.mu.Lock()
	work := p.config.FLOPs(tokens)
	line := []any{"input", path, "record", id, "tokens", tokens, "teraflop", fmt.Sprintf("%.3g", work/1e12)}
	if p.flops > 0 && p.busy > 0 {
		about := time.Duration(work / p.flops * float64(p.busy))
		line = append(line, "about", about.Round(time.Second))
	}
	p.mu.Unlock()
	p.logger().Warn("a very long record: attention grows with the square of its length", line...)
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
