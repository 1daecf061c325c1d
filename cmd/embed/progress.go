package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/term"

	"seqembed/internal/monitor"
	"seqembed/internal/seqio"
	"seqembed/kernels/cuda"
	"seqembed/pool"
	"seqembed/transformer"
)

// tellEvery is the time between two log lines about the progress if there is no dashboard.
const tellEvery = 15 * time.Second

// progress shows the progress of a run: as a dashboard on a terminal, or in log lines. It implements pool.Observer.
type progress struct {
	*monitor.Run
	*observations
	settings  *settings
	log       *slog.Logger
	screen    *monitor.Screen // shows the log and the dashboard
	dashboard bool            // whether the screen may show a dashboard

	tally tally

	continued atomic.Bool // whether an earlier run has computed the results of some records

	mu     sync.Mutex
	closed bool
	ends   []func()          // functions that the method close calls, the last one first
	pci    map[string]string // addresses of GPUs on the PCI bus, by the name of the device
	config transformer.Config
	flops  float64       // FLOPs of all batches of the present model
	busy   time.Duration // time of all batches of the present model, added over all devices
}

func newProgress(s *settings, log *slog.Logger, screen *monitor.Screen, terminal bool) *progress {
	dashboard := terminal && !s.quiet && !s.noProgress && s.logFormat == "text"
	return &progress{Run: monitor.NewRun(), observations: newObservations(s.page != ""), settings: s, log: log, screen: screen, dashboard: dashboard, pci: map[string]string{}}
}

// newScreen returns a screen for the log and the dashboard on w, and reports whether w is a terminal that obeys control
// sequences.
func newScreen(w io.Writer) (s *monitor.Screen, terminal bool) {
	size := func() (width, height int) { return 80, 24 }
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) && monitor.ControlSequences(f) {
		terminal = true
		size = func() (width, height int) {
			width, height, err := term.GetSize(int(f.Fd()))
			if err != nil || width == 0 { // the width is unknown, as on a serial line
				return 80, 24
			}
			return width, height
		}
	}
	return monitor.NewScreen(w, size), terminal
}

// colored reports whether the environment allows colors, see no-color.org.
func colored(environ []string) bool {
	return !slices.ContainsFunc(environ, func(variable string) bool {
		value, set := strings.CutPrefix(variable, "NO_COLOR=")
		return set && value != ""
	})
}

// plan registers the models of the run for progress and report, and begins to show the progress and to read the sensors
// of the GPUs.
func (p *progress) plan(on machine, models []*model, processors []*processor) {
	for _, m := range models {
		sizes := map[string]int64{}
		for _, f := range m.job.Files {
			sizes[f.Path] = f.Size
		}
		p.Plan(m.model, sizes)
		p.observe(m)
	}
	var addresses []string
	for _, d := range processors {
		if gpu, ok := d.opened.(interface{ Device() cuda.Device }); ok && gpu.Device().PCI != "" {
			p.pci[d.name] = gpu.Device().PCI
			addresses = append(addresses, gpu.Device().PCI)
		}
	}
	slices.Sort(addresses)
	p.show(func() (stop func()) { return on.watchSensors(slices.Compact(addresses), p.Sample) })
}

// show begins to show the progress, as a dashboard or in log lines. It also calls the function watch, which begins to
// read sensors. The method close calls the function stop, which watch returns.
func (p *progress) show(watch func() (stop func())) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed { // an interruption has already called close
		return
	}
	p.ends = append(p.ends, watch())
	if p.dashboard {
		p.screen.Show(func(width int) []string { return dashboardLines(p.Snapshot(), width) })
		p.ends = append(p.ends, p.screen.Close)
		return
	}
	ended := make(chan struct{})
	var telling sync.WaitGroup
	telling.Go(func() {
		ticks := time.NewTicker(tellEvery)
		defer ticks.Stop()
		for {
			select {
			case <-ticks.C:
				p.tell()
			case <-ended:
				return
			}
		}
	})
	p.ends = append(p.ends, func() { close(ended); telling.Wait() })
}

// dashboardLines returns the lines of the dashboard. It escapes names before it lays out the lines, because escaped
// names are longer.
func dashboardLines(s monitor.Snapshot, width int) []string {
	for i := range s.Models {
		m := &s.Models[i]
		m.Name = plain(m.Name)
		for j := range m.Devices {
			m.Devices[j].File = plain(m.Devices[j].File)
		}
	}
	return s.Lines(width)
}

// close ends the dashboard or the log lines about the progress, and returns when the terminal is free for other lines.
// A second call has no effect.
func (p *progress) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, end := range slices.Backward(p.ends) {
		end()
	}
	p.ends, p.closed = nil, true
}

// interrupted removes the dashboard, because the process may end at any moment, and logs that a signal has arrived.
func (p *progress) interrupted() {
	if p.dashboard {
		p.close()
		p.screen.Close() // removes the dashboard of a download
	}
	p.log.Warn("interrupted: finishing the batches in flight; a second signal ends the run at once", "at_most", grace)
}

// tell logs the progress: a line for each model that is computing or, in a JSON log, one line for the whole run.
func (p *progress) tell() {
	s := p.Snapshot()
	if p.settings.logFormat == "json" {
		p.log.Info("progress", s.Attributes()...)
		return
	}
	for _, m := range s.Models {
		if m.State == monitor.Computing {
			p.log.Info("progress", m.Attributes()...)
		}
	}
}

// begin announces that the next model begins to embed its files.
func (p *progress) begin(model string, config transformer.Config, files int) {
	p.log.Info("embedding", "model", model, "files", files)
	p.mu.Lock()
	p.config, p.flops, p.busy = config, 0, 0
	p.mu.Unlock()
	p.Begin()
}

// DeviceOpening logs that a device begins to load weights.
func (p *progress) DeviceOpening(device string) {
	p.log.Info("loading weights", "device", device)
	p.Run.DeviceOpening(device, p.pci[device])
}

// DeviceReady logs how long a device took to load the weights.
func (p *progress) DeviceReady(device string, took time.Duration) {
	p.log.Info("weights are loaded", "device", device, "took", took.Round(time.Millisecond))
	p.Run.DeviceReady(device)
}

// DeviceLost logs a warning that a device is lost and the other devices continue.
func (p *progress) DeviceLost(device string, err error) {
	p.Run.DeviceLost(device)
	p.log.Warn("the device is lost, the other devices continue", "device", device, "error", oneLine(err))
}

// FileStarted logs that a device has begun to read a file.
func (p *progress) FileStarted(path, device string) {
	p.log.Debug("file started", "input", path, "device", device)
}

// FileContinued logs that an earlier run has computed the first records of a file, and their number.
func (p *progress) FileContinued(path string, records int64) {
	p.continued.Store(true)
	p.log.Info("continuing inside a file: its first records are those of an earlier run", "input", path, "records", records)
}

// PartsDropped logs a warning that stored results of an unfinished output were dropped, and the reason.
func (p *progress) PartsDropped(path string, reason error) {
	p.log.Warn("results of an output under construction were dropped; they are computed again if a run needs them", "input", path,
		"reason", oneLine(reason))
}

// BatchDone logs a batch and adds it to the progress.
func (p *progress) BatchDone(b pool.Batch) {
	p.log.Debug("batch", "device", b.Device, "input", b.Path, "sequences", b.Sequences, "tokens", b.Tokens, "took", b.Took.Round(time.Microsecond))
	p.Add(monitor.Batch{Device: b.Device, File: b.Path, Sequences: b.Sequences, Tokens: b.Tokens, Budget: b.Budget, Bytes: b.Bytes,
		Took: b.Took, Waited: b.Waited})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy += b.Took
	// The sequences of a batch have similar lengths, so the mean length stands for all of them.
	p.flops += float64(b.Sequences) * p.config.FLOPs(b.Tokens/b.Sequences)
}

// LongRecord logs a long record and the time that it will take. The time is estimated from the batches of the present
// model so far. Before the first batch, it is estimated from a short trial batch (see pool.LongRecord).
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
	p.log.Warn("a very long record: its time grows with the square of its length; --long window embeds it in pieces", line...)
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

// watch shows the progress inside a long batch of a device until stop is called. The function done returns the fraction
// of the batch that has been computed.
func (p *progress) watch(device string, done func() float64) (stop func()) {
	p.Inside(device, done)
	return func() { p.Inside(device, nil) }
}

// BudgetHalved logs a warning that a device ran out of memory and its batches get smaller.
func (p *progress) BudgetHalved(device string, tokens int, err error) {
	p.Halved(device, tokens)
	p.log.Warn("out of memory: batches get smaller", "device", device, "tokens", tokens, "error", oneLine(err))
}

// RecordSkipped logs a warning that names a skipped record and the reason.
func (p *progress) RecordSkipped(path, id string, line int64, err error) {
	p.log.Warn("record skipped", "input", path, "record", id, "line", line, "error", oneLine(err))
}

// FileSkipped counts a file whose outputs an earlier run has made, and logs it.
func (p *progress) FileSkipped(path string) {
	p.Settle(path, false)
	p.tally.add(totals{Resumed: 1})
	p.observations.resumed(path)
	p.log.Info("complete since an earlier run", "input", path)
}

// FileFinished counts a finished file and logs its output, and the first records that were truncated or skipped.
func (p *progress) FileFinished(f pool.FileReport) {
	p.Settle(f.Path, false)
	p.tally.add(totals{Files: 1, Records: f.Records, Tokens: f.Tokens, Truncated: f.Truncated})
	p.observations.finished(f)
	p.log.Info("file finished", "input", f.Path, "records", f.Records, "tokens", f.Tokens, "output", f.Outputs[0].Path)
	if f.Truncated > 0 {
		var first []string
		for _, cut := range f.Cut {
			first = append(first, fmt.Sprintf("%s (line %d, %d letters)", cut.ID, cut.Line, cut.Letters))
		}
		p.log.Warn("records were truncated: --long window or --max-length uses more of them", "input", f.Path,
			"records", f.Truncated, "first", strings.Join(first, ", "))
	}
	if f.CutShort {
		p.log.Warn(cutShort, "input", f.Path)
	}
	if f.Overflows > 0 {
		p.log.Warn("values beyond the range of float16 became infinities: --dtype-out fp32 keeps them", "input", f.Path, "values", f.Overflows)
	}
	countSkipped(p, f.Path, f.Skipped, f.Examples)
}

// cutShort is the warning about a file of bgzip without its last block.
const cutShort = "the file may be cut short: it lacks the empty block with which bgzip ends a file"

// skippedRecords returns the number of records that were skipped, given the numbers by reason.
func skippedRecords(counts map[string]int64) (sum int64) {
	for _, n := range counts {
		sum += n
	}
	return sum
}

// countSkipped counts the records of an input that were skipped, by reason, and logs the first of them.
func countSkipped(p *progress, path string, counts map[string]int64, first []seqio.Skip) {
	n := skippedRecords(counts)
	p.Skipped(n)
	p.tally.add(totals{Skipped: n})
	for _, skip := range first {
		p.log.Warn("record skipped", "input", path, "record", skip.ID, "line", skip.Line, "reason", skip.Reason, "detail", skip.Detail)
	}
}

// FileFailed counts a failed file and logs its error, with advice if there is any.
func (p *progress) FileFailed(f pool.Failure) {
	p.Settle(f.Path, true)
	p.tally.add(totals{Failed: 1})
	p.observations.failed(f)
	p.log.Error(oneLine(withHint(f.Err)), "input", f.Path)
}
