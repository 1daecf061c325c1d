package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"seqembed/pool"
)

// newLog makes the log that the settings ask for, on w.
func newLog(s *settings, w io.Writer) (*slog.Logger, error) {
	level := slog.LevelInfo
	switch {
	case s.quiet && s.verbose:
		return nil, usagef("--quiet and --verbose exclude each other")
	case s.quiet:
		level = slog.LevelError
	case s.verbose:
		level = slog.LevelDebug
	}
	options := &slog.HandlerOptions{Level: level}
	switch s.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return nil, usagef("--log-format: %q is neither text nor json", s.logFormat)
}

// tickEvery is how often a line tells the progress where there is no bar.
const tickEvery = 15 * time.Second

// progress shows what a run does: a bar on a terminal, log lines elsewhere.
// It implements pool.Observer.
type progress struct {
	terminal io.Writer // nil where there is no bar

	mu       sync.Mutex // guards what follows
	log      *slog.Logger
	settings *settings
	bars     *mpb.Progress
	bar      *mpb.Bar
	files    int
	finished int
	bytes    int64 // of all the model's files
	done     int64
	tokens   int64
	records  int64
	began    time.Time // the first batch
	told     time.Time // the last line
}

func newProgress(s *settings, log *slog.Logger, stderr io.Writer) *progress {
	p := &progress{log: log, settings: s}
	if f, ok := stderr.(*os.File); ok && !s.quiet && !s.noProgress && s.logFormat == "text" && term.IsTerminal(int(f.Fd())) {
		p.terminal = stderr
	}
	return p
}

// begin starts the display of one model over files.
func (p *progress) begin(model string, files []pool.File) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.files, p.finished, p.bytes, p.done, p.tokens, p.records = len(files), 0, 0, 0, 0, 0
	p.began, p.told = time.Time{}, time.Now()
	for _, f := range files {
		p.bytes += f.Size
	}
	p.log.Info("embedding", "model", model, "files", p.files)
	if p.terminal == nil {
		return
	}
	p.bars = mpb.New(mpb.WithOutput(p.terminal), mpb.WithAutoRefresh())
	p.bar = p.bars.AddBar(max(p.bytes, 1),
		mpb.PrependDecorators(decor.Name(model+" "), decor.Any(p.fileCount)),
		mpb.AppendDecorators(decor.Percentage(decor.WC{W: 5}), decor.Any(p.rate), decor.Name("  "), decor.AverageETA(decor.ET_STYLE_GO)),
	)
	// Log lines go above the bar from now on.
	log, err := newLog(p.settings, p.bars)
	if err == nil {
		p.log = log
	}
}

// fileCount and rate are drawn beside the bar.
func (p *progress) fileCount(decor.Statistics) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Sprintf("%d/%d files ", p.finished, p.files)
}

func (p *progress) rate(decor.Statistics) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Sprintf("  %s records  %s tokens/s", grouped(p.records), grouped(p.perSecond()))
}

// perSecond is the rate of tokens since the first batch began.
func (p *progress) perSecond() int64 {
	if p.began.IsZero() {
		return 0
	}
	return int64(float64(p.tokens) / max(time.Since(p.began).Seconds(), 1e-3))
}

// end takes the display of one model down.
func (p *progress) end() {
	p.mu.Lock()
	bars, bar := p.bars, p.bar
	p.bars, p.bar = nil, nil
	p.mu.Unlock()
	if bars == nil {
		return
	}
	bar.SetTotal(-1, true) // whatever rounding left open
	bar.Abort(false)
	bars.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	if log, err := newLog(p.settings, p.terminal); err == nil {
		p.log = log
	}
}

func (p *progress) close() { p.end() }

// logger is the log of the moment: above the bar, or as it was.
func (p *progress) logger() *slog.Logger {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log
}

func (p *progress) DeviceOpening(device string) {
	p.logger().Info("loading weights", "device", device)
}

func (p *progress) DeviceReady(device string, took time.Duration) {
	p.logger().Info("weights are loaded", "device", device, "took", took.Round(time.Millisecond))
	p.mu.Lock()
	p.began = time.Now()
	p.mu.Unlock()
}

func (p *progress) FileStarted(path, device string) {
	p.logger().Debug("file started", "input", path, "device", device)
}

func (p *progress) BatchDone(b pool.Batch) {
	p.logger().Debug("batch", "device", b.Device, "input", b.Path, "sequences", b.Sequences, "tokens", b.Tokens, "took", b.Took.Round(time.Microsecond))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += b.Bytes
	p.tokens += int64(b.Tokens)
	p.records += int64(b.Sequences)
	if p.bar != nil {
		p.bar.SetCurrent(min(p.done, max(p.bytes, 1)-1)) // full only at the end
	} else if time.Since(p.told) >= tickEvery {
		p.told = time.Now()
		p.log.Info("progress", "files", fmt.Sprintf("%d/%d", p.finished, p.files), "records", p.records, "tokens_per_second", p.perSecond(),
			"percent", 100*p.done/max(p.bytes, 1))
	}
}

func (p *progress) LongRecord(path, id string, tokens int) {
	p.logger().Warn("a very long record: attention grows with the square of its length", "input", path, "record", id, "tokens", tokens)
}

func (p *progress) Halved(device string, tokens int, err error) {
	p.logger().Warn("out of memory: the batch is halved", "device", device, "tokens", tokens, "error", err)
}

func (p *progress) RecordSkipped(path, id string, line int64, err error) {
	p.logger().Warn("record skipped", "input", path, "record", id, "line", line, "error", err)
}

func (p *progress) FileSkipped(path string) {
	p.settle()
	p.logger().Info("complete since an earlier run", "input", path)
}

func (p *progress) FileFinished(f pool.FileReport) {
	p.settle()
	p.logger().Info("file finished", "input", f.Path, "records", f.Records, "tokens", f.Tokens, "output", f.Outputs[0].Path)
	for _, skip := range f.Examples {
		p.logger().Warn("record skipped", "input", f.Path, "record", skip.ID, "line", skip.Line, "reason", skip.Reason, "detail", skip.Detail)
	}
}

func (p *progress) FileFailed(f pool.Failure) {
	p.settle()
	p.logger().Error(oneLine(f.Err), "input", f.Path)
}

// settle counts a file that is dealt with.
func (p *progress) settle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finished++
}
