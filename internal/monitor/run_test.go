package monitor

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/mattn/go-runewidth"
)

// clock is a run whose present time the test sets.
type clock struct {
	*Run
	at time.Time
}

func newClock() *clock {
	c := &clock{Run: NewRun(), at: time.Now()}
	c.began, c.now = c.at, func() time.Time { return c.at }
	return c
}

func (c *clock) pass(seconds float64) { c.at = c.at.Add(time.Duration(seconds * float64(time.Second))) }

// model returns the state of the model that was begun last.
func (c *clock) model() Model {
	s := c.Snapshot()
	return s.Models[c.next-1]
}

func batch(device, file string, tokens int, bytes int64, took, waited time.Duration) Batch {
	return Batch{Device: device, File: file, Sequences: 2, Tokens: tokens, Budget: 100, Bytes: bytes, Took: took, Waited: waited}
}

// TestCounts checks the percentage of the bytes that are done: when a file was complete before, when it fails, when its
// batches have more bytes than the file, and when it has finished.
func TestCounts(t *testing.T) {
	c := newClock()
	c.Plan("m", map[string]int64{"f0": 100, "f1": 200, "f2": 300})
	c.Begin()
	c.DeviceReady("one")
	want := func(percent Value) {
		t.Helper()
		if got := c.model().Percent; got != percent {
			t.Errorf("%v%%, want %v%%", got, percent)
		}
	}
	add := func(file string, bytes int64) { c.Add(batch("one", file, 10, bytes, time.Second, 0)) }
	c.Settle("f0", false)
	want(16)
	add("f1", 150)
	want(41)
	add("f1", 60) // 50 bytes count, because the file has only 200
	want(50)
	c.Settle("f1", true)
	want(50)
	add("f1", 40) // a batch that was in flight when its file failed
	want(50)
	add("f2", 299)
	c.Settle("f2", false)
	want(100)
	if m := c.model(); m.FilesDone != 3 || m.FilesFailed != 1 || m.Left != 0 || m.Sequences != 8 || m.Tokens != 40 {
		t.Errorf("%+v", m)
	}
}

// TestFailures checks that an input that fails before the first model or after the last one counts for the run, but not
// for a model.
func TestFailures(t *testing.T) {
	c := newClock()
	c.Settle("empty", true)
	c.Plan("m", map[string]int64{"f0": 100, "f1": 200})
	c.Begin()
	c.DeviceReady("one")
	c.Settle("f0", true)
	c.Settle("f1", false)
	c.End()
	c.Settle("other", true)
	s := c.Snapshot()
	if s.Models[0].State != Done || s.Models[0].Devices[0].State != Done {
		t.Errorf("%+v", s)
	}
	if m := s.Models[0]; s.FilesFailed != 3 || m.FilesFailed != 1 || m.FilesDone != 2 {
		t.Errorf("%+v", s)
	}
	if line := s.Lines(80)[0]; line != "running 0s  3 failed" {
		t.Errorf("%q", line)
	}
}

// TestRemaining checks that the remaining time is estimated from the bytes that this run has computed, without those of
// an earlier run, and that it is called a minimum until the last model has begun.
func TestRemaining(t *testing.T) {
	c := newClock()
	c.Plan("m", map[string]int64{"f0": 1000, "f1": 400, "f2": 600})
	c.Plan("n", map[string]int64{"-": 0})
	c.Begin()
	c.Settle("f0", false)
	c.SpanKnown("f2", 500)
	c.DeviceReady("one")
	if s := c.Snapshot(); s.Left.known() {
		t.Errorf("an estimate of %v from nothing", s.Left)
	}
	c.pass(10)
	c.Add(batch("one", "f1", 10, 250, time.Second, 0))
	if s := c.Snapshot(); s.Left != 10 || !s.LeftAtLeast || s.Models[1].State != Waiting {
		t.Errorf("%+v, want at least 10 seconds for 250 bytes after 10 for 250", s)
	}
	c.End()
	c.Begin()
	c.DeviceReady("one")
	c.pass(1)
	c.Add(batch("one", "-", 10, 250, time.Second, 0))
	if s := c.Snapshot(); s.Left.known() || s.LeftAtLeast || s.Models[1].Percent.known() || s.Models[0].State != Stopped || s.Models[0].Seconds != 10 {
		t.Errorf("the size of the input is not known: %+v", s)
	}
}

// TestRates checks the present and the mean tokens per second of two devices, one of which is lost, and of the model.
func TestRates(t *testing.T) {
	c := newClock()
	c.Plan("m", map[string]int64{"f": 1000})
	c.Begin()
	for _, d := range []string{"cuda:10", "cuda:2"} {
		c.DeviceOpening(d, "")
		c.DeviceReady(d)
	}
	for range 20 { // 50 tokens/s; the next loop has 100
		c.pass(1)
		c.Add(batch("cuda:2", "f", 50, 1, time.Second, 0))
	}
	for range 20 {
		c.pass(1)
		c.Add(batch("cuda:2", "f", 100, 1, time.Second/2, time.Second/2))
	}
	c.Add(batch("cuda:10", "f", 40, 1, time.Second, 0))
	c.DeviceLost("cuda:10")
	m := c.model()
	if d := m.Devices[0]; d.Name != "cuda:2" || d.Now != 100 || d.TokensPerSecond != 75 || d.Busy != 30 || d.Waiting != 10 || d.Batch != 100 {
		t.Errorf("%+v", d)
	}
	c.pass(10)
	if d := c.model().Devices[1]; d.State != Lost || d.TokensPerSecond != 1 || d.Now.known() {
		t.Errorf("%+v", d)
	}
	if d := c.model().Devices[0]; d.Now != Value(1100.0/21) { // 11 batches of 100 tokens in 21 seconds
		t.Errorf("after a pause %v tokens/s", d.Now)
	}
	if m.Fill != Value(100*3040.0/4100) || m.TokensPerSecond != 76 {
		t.Errorf("%v%% full, %v tokens/s", m.Fill, m.TokensPerSecond)
	}
}

// TestHeldBackBy checks that HeldBackBy names the stage that waits the smallest part of its time. It must be empty if
// no stage was busy.
func TestHeldBackBy(t *testing.T) {
	for want, times := range map[string][3][2]time.Duration{
		"reading":   {{9, 0}, {3, 6}, {1, 8}},
		"computing": {{2, 7}, {9, 0}, {1, 8}},
		"writing":   {{2, 7}, {3, 6}, {9, 1}},
		"":          {{0, 1}, {0, 0}, {0, 0}},
	} {
		c := newClock()
		c.Plan("m", map[string]int64{})
		c.Begin()
		c.SpanRead(times[0][0]*time.Second, times[0][1]*time.Second)
		c.Add(batch("one", "f", 1, 1, times[1][0]*time.Second, times[1][1]*time.Second))
		c.SpanWritten(times[2][0]*time.Second, times[2][1]*time.Second)
		if m := c.model(); m.HeldBackBy != want {
			t.Errorf("%v: %q, want %q", times, m.HeldBackBy, want)
		}
	}
}

// TestSamples checks that a sample of GPU sensors reaches the device with its PCI address, that means and peaks cover
// only the time in which the device computes, and that an old sample is not shown.
func TestSamples(t *testing.T) {
	c := newClock()
	c.Plan("m", map[string]int64{"f": 10})
	c.Begin()
	c.DeviceOpening("cuda:0", "b")
	c.DeviceOpening("cuda:1", "a")
	sample := func(utilization Value) Sample {
		return Sample{Utilization: utilization, MemoryUsed: 10 * utilization, MemoryTotal: 1000, Temperature: 60, Power: unknown, Clock: 1000}
	}
	c.Sample("a", sample(5)) // ignored in means and peaks: the device still loads weights
	c.DeviceReady("cuda:1")
	c.Sample("a", sample(70))
	c.Sample("a", sample(90))
	c.Sample("c", sample(1))
	d := c.model().Devices
	if d[1].Utilization != 90 || d[1].MeanUtilization != 80 || d[1].PeakMemory != 900 || d[1].PeakTemperature != 60 || d[1].MeanPower.known() || d[1].Power.known() {
		t.Errorf("%+v", d[1])
	}
	if d[0].Utilization.known() || d[0].MeanUtilization.known() || d[0].PeakMemory.known() {
		t.Errorf("%+v", d[0])
	}
	c.pass(6)
	if d := c.model().Devices[1]; d.Utilization.known() || d.MeanUtilization != 80 {
		t.Errorf("an old sample is shown: %+v", d)
	}
}

// TestJSON checks the names of some fields in the JSON of a Snapshot, and that unknown and infinite values are null.
func TestJSON(t *testing.T) {
	text, err := json.Marshal(example().Models[1].Devices[1])
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"device":"cuda:1"`, `"utilization_percent":92`, `"power_watts":null`, `"memory_used_bytes":2147483648`,
		`"tokens_per_second_now":1234.568`, `"busy_seconds":3`} {
		if !strings.Contains(string(text), part) {
			t.Errorf("no %s in %s", part, text)
		}
	}
	if text, err := json.Marshal(NewRun().Snapshot()); err != nil || !strings.Contains(string(text), `"models":[]`) {
		t.Errorf("without a model: %s: %v", text, err)
	}
	if text, err := json.Marshal([]Value{unknown, Value(math.Inf(1))}); err != nil || string(text) != "[null,null]" {
		t.Errorf("%s: %v", text, err)
	}
}

// example returns the state of a run of three models: one is done, one is being computed by two devices, and one waits.
func example() Snapshot {
	gpu := Device{Name: "cuda:0", State: Computing, File: "samples/S1/final.contigs.proteins.faa", Sequences: 123456, TokensPerSecond: 98765, Now: 99999,
		Batch: 32768, LongPercent: unknown, Utilization: 97, MemoryUsed: 61 << 30, MemoryTotal: 80 << 30, Temperature: 64, Power: 512, Clock: 1980}
	other := Device{Name: "cuda:1", State: Computing, File: "b.faa", Sequences: 7, TokensPerSecond: 1000, Now: 1234.5678, Batch: 8192, LongPercent: unknown,
		Stage: Stage{Busy: 3}, Utilization: 92, MemoryUsed: 2 << 30, MemoryTotal: 80 << 30, Temperature: 61, Power: unknown, Clock: 1980}
	return Snapshot{Elapsed: 4000, Left: 61, LeftAtLeast: true, FilesFailed: 1, Models: []Model{
		{Name: "dnabert-s", State: Done, Files: 3, FilesDone: 3, Percent: 100, Sequences: 1000, TokensPerSecond: 5000, FilesFailed: 1},
		{Name: "esm2-650m", State: Computing, Files: 12, FilesDone: 5, Percent: 41, Sequences: 123463, TokensPerSecond: 99765, Left: 61, Halvings: 2, Skipped: 1003,
			Fill: 93, Reading: Stage{1, 9}, Computing: Stage{9, 1}, Writing: Stage{2, 8}, HeldBackBy: "computing", Devices: []Device{gpu, other}},
		{Name: "esm2-3b", State: Waiting, Files: 2, Percent: 0, TokensPerSecond: unknown, Left: unknown},
	}}
}

// TestLines checks the lines of the dashboard at several widths. No line may be wider than the terminal.
func TestLines(t *testing.T) {
	for width, want := range map[int]string{
		119: `running 1h6m40s  >1m1s left  1 failed  2× out of memory  1,003 records skipped
model                             done  files  sequences  tokens/s  left
dnabert-s  ####################   100%    3/3      1,000     5,000    0s
esm2-650m  ########............    41%   5/12    123,463    99,765  1m1s
esm2-3b                          to do    0/2          0         -
device  file                        tokens/s    mean  sequences   batch         memory  GPU  temp  power     clock
cuda:0  final.contigs.proteins.faa    99,999  98,765    123,456  32,768  61.0/80.0 GiB  97%  64°C  512 W  1980 MHz
cuda:1  b.faa                          1,234   1,000          7   8,192   2.0/80.0 GiB  92%  61°C      -  1980 MHz
reading waits 90%  computing waits 10%  writing waits 80%  computing holds back  batches 93% full`,
		79: `running 1h6m40s  >1m1s left  1 failed  2× out of memory  1,003 records skipped
model                             done  files  sequences  tokens/s  left
dnabert-s  ####################   100%    3/3      1,000     5,000    0s
esm2-650m  ########............    41%   5/12    123,463    99,765  1m1s
esm2-3b                          to do    0/2          0         -
device  file            tokens/s    mean  sequences   batch         memory  GPU
cuda:0  final.contigs…    99,999  98,765    123,456  32,768  61.0/80.0 GiB  97%
cuda:1  b.faa              1,234   1,000          7   8,192   2.0/80.0 GiB  92%
reading waits 90%  computing waits 10%  computing holds back  batches 93% full`,
		59: `running 1h6m40s  >1m1s left  1 failed  2× out of memory
model       done  files  sequences  tokens/s  left
dnabert-s   100%    3/3      1,000     5,000    0s
esm2-650m    41%   5/12    123,463    99,765  1m1s
esm2-3b    to do    0/2          0         -
device  file           tokens/s    mean         memory  GPU
cuda:0  final.contig…    99,999  98,765  61.0/80.0 GiB  97%
cuda:1  b.faa             1,234   1,000   2.0/80.0 GiB  92%
reading waits 90%  computing holds back  batches 93% full`,
		39: `running 1h6m40s  >1m1s left  1 failed
model       done  files  tokens/s  left
dnabert-s   100%    3/3     5,000    0s
esm2-650m    41%   5/12    99,765  1m1s
esm2-3b    to do    0/2         -
device  file              tokens/s  GPU
cuda:0  final.contigs.p…    99,999  97%
cuda:1  b.faa                1,234  92%
computing holds back  batches 93% full`,
		12: "", 1: "", // all lines must fit; their text is not compared
	} {
		got := example().Lines(width)
		for _, line := range got {
			if w := runewidth.StringWidth(line); w > width {
				t.Errorf("a line of %d columns at %d: %q", w, width, line)
			}
		}
		if want != "" && strings.Join(got, "\n") != want {
			t.Errorf("%d:\n%s\nwant\n%s", width, strings.Join(got, "\n"), want)
		}
	}
}

// TestThroughput checks the throughput of two devices over ten minutes, in batches of 0.7 seconds. The tokens of all
// intervals must add up to those of the batches and be in the right intervals, and the number of intervals must be
// bounded.
func TestThroughput(t *testing.T) {
	c := newClock()
	c.Plan("m", map[string]int64{"f": 100})
	c.Begin()
	c.DeviceReady("one")
	c.DeviceReady("two")
	c.pass(60) // no batch for a minute
	for i := range 900 {
		c.pass(0.7)
		c.Add(batch("one", "f", 70, 1, 700*time.Millisecond, 0))
		if i >= 450 {
			c.Add(batch("two", "f", 140, 1, 700*time.Millisecond, 0))
		}
	}
	c.End()
	got := c.Throughput()[0]
	if len(got.Devices) != 2 || got.Time != 690*time.Second || len(got.Tokens[0]) > maxIntervals || len(got.Tokens[0]) < maxIntervals/2 {
		t.Fatalf("%d devices, %v, %d intervals", len(got.Devices), got.Time, len(got.Tokens[0]))
	}
	for d, want := range []float64{900 * 70, 450 * 140} {
		sum := 0.0
		for i, n := range got.Tokens[d] {
			sum += n
			from, to := got.Width*time.Duration(i), got.Width*time.Duration(i+1)
			begin := []time.Duration{60 * time.Second, 375 * time.Second}[d]
			rate := n / got.Width.Seconds()
			if to <= begin && n > 0 || from >= begin && to <= got.Time && math.Abs(rate-[]float64{100, 200}[d]) > 1e-6 {
				t.Errorf("%s: %v tokens/s from %v to %v", got.Devices[d], rate, from, to)
			}
		}
		if math.Abs(sum-want) > 1e-6 {
			t.Errorf("%s: %v tokens, want %v", got.Devices[d], sum, want)
		}
	}
}
