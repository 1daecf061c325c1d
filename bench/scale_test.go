package bench

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"seqembed/internal/seqio"
	"seqembed/internal/store"
	"seqembed/kernels"
	"seqembed/pool"
	"seqembed/tokenizer"
	"seqembed/transformer"
)

var scaleTables = flag.Bool("bench.scale", false, "print the tables of docs/scale.md, in minutes")

// proteinLengths contains the 51 quantiles, in steps of 2%, of the lengths of 20,000 proteins of UniProt, which are an
// example file of MMseqs2. If proteins are truncated at 1,022 letters, lengths drawn from these quantiles give 411.9
// tokens a record, as the file does.
var proteinLengths = []int{7, 51, 65, 78, 88, 100, 113, 124, 134, 147, 158, 171, 184, 194, 205, 216, 227, 239, 253, 268, 280, 294, 307, 319, 333, 345,
	357, 369, 384, 398, 416, 436, 454, 477, 498, 518, 540, 569, 596, 617, 640, 664, 697, 744, 804, 872, 955, 1088, 1275, 1679, 8081}

// proteins returns FASTA with random records whose lengths are distributed as proteinLengths says.
func proteins(rng *rand.Rand, records int) []byte {
	var b bytes.Buffer
	for i := range records {
		fmt.Fprintf(&b, ">r%d\n", i)
		bin := rng.IntN(len(proteinLengths) - 1)
		for range proteinLengths[bin] + rng.IntN(proteinLengths[bin+1]-proteinLengths[bin]) {
			b.WriteByte("LAGVSERTIDPKQNFYMHWC"[rng.IntN(20)])
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// simulation is a run of package pool with simulated devices, which compute nothing and only take the time of a model.
// Reading, packing, queueing and writing are those of the program. The clock is that of testing/synctest, by which the
// host's work takes no time, except for the simulated time of reading.
type simulation struct {
	model   simulatedModel
	files   []int // number of records of each file
	devices []simulatedDevice
	reading time.Duration // time that a reader takes to read and tokenize a letter
	seed    uint64
}

// simulatedModel tells how long a device takes for a batch. The rates are those of full batches on an H200
// (docs/performance.md). The fixed time was derived from two passes over the same tokens in different numbers of
// batches (bench/results/2026-11-26-h200.md, visit 2): esm2-650m took 0.6802 s in 7 batches and 0.6707 s in 4,
// dnabert-s 0.1375 s in 9 and 0.1355 s in 5. The fixed time of esm2-8m was not measured; that of dnabert-s is used
// instead.
type simulatedModel struct {
	name  string
	rate  float64       // in tokens per second, of full batches
	fixed time.Duration // part of the time of each batch that does not depend on its tokens
}

var (
	simulated650M = simulatedModel{"esm2-650m", 340_288, 3200 * time.Microsecond}
	simulatedDNA  = simulatedModel{"dnabert-s", 2_018_308, 500 * time.Microsecond}
	simulated8M   = simulatedModel{"esm2-8m", 10_132_423, 500 * time.Microsecond}
)

// simulatedBudget is the number of tokens of a full batch.
const simulatedBudget = 32768

// batch returns the time that a device takes for a batch with the given number of tokens.
func (m simulatedModel) batch(tokens int) time.Duration {
	full := time.Duration(simulatedBudget / m.rate * 1e9)
	return m.fixed + (full-m.fixed)*time.Duration(tokens)/simulatedBudget
}

// simulatedDevice is a device that computes one batch after the other.
type simulatedDevice struct {
	speed float64       // a device with speed 1 computes at the rate of the model
	dies  time.Duration // time after which every batch fails; 0 means never
}

// embedder is the pool.Embedder of an open simulatedDevice. Its embeddings are constant.
type embedder struct {
	simulatedDevice
	model simulatedModel
	began time.Time
	until time.Time // time at which the last started batch is finished
}

func (e *embedder) Budget() int  { return simulatedBudget }
func (e *embedder) Close() error { return nil }

func (e *embedder) Start(b kernels.Batch) func() ([][]float32, error) {
	if now := time.Now(); e.until.Before(now) {
		e.until = now // the device was idle
	}
	e.until = e.until.Add(time.Duration(float64(e.model.batch(len(b.IDs))) / e.speed))
	until := e.until
	return func() ([][]float32, error) {
		time.Sleep(time.Until(until))
		if e.dies > 0 && time.Since(e.began) >= e.dies {
			return nil, errors.New("the device is lost")
		}
		return [][]float32{slices.Repeat([]float32{1}, b.Sequences())}, nil
	}
}

// slowTokenizer is a tokenizer that takes the time perToken for each letter, which is a token of ESM-2.
type slowTokenizer struct {
	tokenizer.Tokenizer
	perToken time.Duration
}

func (s slowTokenizer) Append(ids []int32, letters []byte) ([]int32, int) {
	time.Sleep(time.Duration(len(letters)) * s.perToken)
	return s.Tokenizer.Append(ids, letters)
}

// quiet is a pool.Observer that does nothing.
type quiet struct{}

func (quiet) DeviceOpening(string)                        {}
func (quiet) DeviceReady(string, time.Duration)           {}
func (quiet) DeviceLost(string, error)                    {}
func (quiet) FileStarted(_, _ string)                     {}
func (quiet) FileContinued(string, int64)                 {}
func (quiet) PartsDropped(string, error)                  {}
func (quiet) SpanKnown(string, int64)                     {}
func (quiet) BatchDone(pool.Batch)                        {}
func (quiet) SpanRead(_, _ time.Duration)                 {}
func (quiet) SpanWritten(_, _ time.Duration)              {}
func (quiet) LongRecord(pool.LongRecord)                  {}
func (quiet) BudgetHalved(string, int, error)             {}
func (quiet) RecordSkipped(_, _ string, _ int64, _ error) {}
func (quiet) RecordWritten(string, int64, []store.Row)    {}
func (quiet) FileSkipped(string)                          {}
func (quiet) FileFinished(pool.FileReport)                {}
func (quiet) FileFailed(pool.Failure)                     {}

// simulated is the result of a simulation.
type simulated struct {
	took   time.Duration
	tokens int64
	ideal  time.Duration // shortest possible time, see simulation.ideal
}

func (s simulated) efficiency() float64 { return float64(s.ideal) / float64(s.took) }

// run writes the input files, runs the pool over them with the simulated devices, and returns the simulated time.
func (s simulation) run(t *testing.T) (result simulated) {
	t.Helper()
	rng, dir := rand.New(rand.NewPCG(s.seed, 1)), t.TempDir()
	in := filepath.Join(dir, "in")
	if err := os.Mkdir(in, 0o777); err != nil {
		t.Fatal(err)
	}
	for i, records := range s.files {
		if err := os.WriteFile(filepath.Join(in, fmt.Sprintf("%d.faa", i)), proteins(rng, records), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		inputs, _, err := seqio.Expand(in, seqio.Protein)
		if err != nil {
			t.Fatal(err)
		}
		_, files, failed, err := pool.Plan(t.Context(), inputs, seqio.Options{})
		if err != nil || len(failed) > 0 {
			t.Fatal(failed, err)
		}
		job := &pool.Job{Files: files, Tokenizer: slowTokenizer{transformer.ESM2.NewTokenizer(), s.reading}, Observer: quiet{},
			Long: pool.LongTruncate, MaxLength: 1022,
			Output: pool.Output{Dir: filepath.Join(dir, "out"), Label: "m", Format: store.Npy, Dim: 1,
				Columns: []store.Column{{Pooling: store.Mean, Layer: 1}}, Template: store.Entry{Model: "m"}}}
		for i, d := range s.devices {
			open := func() (pool.Embedder, error) {
				return &embedder{simulatedDevice: d, model: s.model, began: time.Now()}, nil
			}
			job.Devices = append(job.Devices, pool.Device{Name: fmt.Sprint(i), Ahead: 1, Open: open})
		}
		began := time.Now()
		summary, err := job.Run(context.Background())
		result = simulated{took: time.Since(began), tokens: summary.Tokens}
		if err != nil || len(summary.Failed) > 0 {
			t.Fatal(summary.Failed, err)
		}
	})
	result.ideal = s.ideal(result.tokens)
	return result
}

// ideal returns the shortest possible time for a number of tokens: that of full batches only, if every device computes
// until the end of the run or until it is lost.
func (s simulation) ideal(tokens int64) time.Duration {
	work := float64(tokens) / s.model.rate // remaining work, in seconds of one device of speed 1
	rate := 0.0
	for _, d := range s.devices {
		if d.dies > 0 {
			work -= d.speed * d.dies.Seconds()
			continue
		}
		rate += d.speed
	}
	return time.Duration(work / rate * 1e9)
}

// sound returns n devices without faults.
func sound(n int) []simulatedDevice { return slices.Repeat([]simulatedDevice{{speed: 1}}, n) }

// hostReading is an upper limit of the time that a reader takes to read and tokenize a letter. It was measured with
// proteins of 350 residues (docs/performance.md, "The host with a GPU").
const hostReading = 50 * time.Nanosecond

// uniprot returns a simulation of 20,000 records in one file, with the lengths of proteins of UniProt.
func uniprot(m simulatedModel, devices []simulatedDevice) simulation {
	return simulation{model: m, files: []int{20000}, devices: devices, reading: hostReading}
}

// TestDevicesShareTheWork checks, in simulations, that several devices take nearly the ideal time for a run: with two
// or eight equal devices, with files of very unequal size, with a slow device, and with a device that is lost.
func TestDevicesShareTheWork(t *testing.T) {
	if testing.Short() {
		t.Skip("the tests of the pool run its goroutines under the race detector")
	}
	one := uniprot(simulated650M, sound(1)).run(t)
	for _, c := range []struct {
		devices int
		speedup float64
	}{{2, 1.96}, {8, 7.8}} {
		r := uniprot(simulated650M, sound(c.devices)).run(t)
		if got := float64(one.took) / float64(r.took); got < c.speedup {
			t.Errorf("%d devices are %.2f times as fast as one, want %.2f", c.devices, got, c.speedup)
		}
	}
	slow, lost := sound(8), sound(8)
	slow[0].speed, lost[0].dies = 0.5, time.Second
	for _, c := range []struct {
		name  string
		s     simulation
		least float64
	}{
		{"files of very unequal size", simulation{model: simulated650M, files: []int{12000, 4000, 2000, 900, 500, 300, 100, 60, 40, 30, 20, 20, 10, 10, 5, 5},
			devices: sound(4), reading: hostReading}, 1 / 1.1},
		{"a device of half the speed", uniprot(simulated650M, slow), 0.95},
		{"a device that is lost", uniprot(simulated650M, lost), 0.9},
	} {
		if r := c.s.run(t); r.efficiency() < c.least {
			t.Errorf("%s: %v, %.3f of the ideal %v; want %.3f", c.name, r.took, r.efficiency(), r.ideal, c.least)
		}
	}
}

// TestScaleTable prints the tables of docs/scale.md.
func TestScaleTable(t *testing.T) {
	if !*scaleTables {
		t.Skip("without -bench.scale")
	}
	fmt.Println("| model | devices | files | s | of the ideal |\n| --- | --- | --- | --- | --- |")
	row := func(name string, s simulation) {
		r := s.run(t)
		fmt.Printf("| %s | %d | %d | %.3f | %.1f%% |\n", name, len(s.devices), len(s.files), r.took.Seconds(), 100*r.efficiency())
	}
	for _, m := range []simulatedModel{simulated650M, simulatedDNA, simulated8M} {
		for _, n := range []int{1, 2, 4, 8} {
			row(m.name, uniprot(m, sound(n)))
		}
	}
	eight := uniprot(simulated8M, sound(8))
	eight.files = slices.Repeat([]int{2500}, 8)
	row("esm2-8m", eight)
	for _, lookAt := range []struct {
		name   string
		change func(*simulatedDevice)
	}{
		{"one of half the speed", func(d *simulatedDevice) { d.speed = 0.5 }},
		{"one of a tenth of the speed", func(d *simulatedDevice) { d.speed = 0.1 }},
		{"one lost after 1 s", func(d *simulatedDevice) { d.dies = time.Second }},
	} {
		devices := sound(8)
		lookAt.change(&devices[0])
		row("esm2-650m, "+lookAt.name, uniprot(simulated650M, devices))
	}
	printShards(t)
}

// printShards prints how well machines with eight devices each are used if a scheduler gives a machine the next shard
// of the input whenever the machine is free. The time that a machine needs for its share of the input comes from one of
// 25 simulated runs of 20,000 records on eight devices. If there are k shards for each machine, a shard takes a kth of
// that time.
func printShards(t *testing.T) {
	const simulations, most = 25, 125
	var shards []simulated
	for i := range simulations {
		s := uniprot(simulated650M, sound(8))
		s.seed = uint64(i + 1)
		shards = append(shards, s.run(t))
	}
	shards = slices.Repeat(shards, most/simulations)
	fmt.Println("\n| devices | machines | shards on a machine | of the ideal | one machine of half the speed |\n| --- | --- | --- | --- | --- |")
	for _, machines := range []int{8, most} {
		for _, each := range []int{1, 4, 16, 64} {
			var times []time.Duration
			ideal := time.Duration(0)
			for _, s := range shards[:machines] {
				times = append(times, slices.Repeat([]time.Duration{s.took / time.Duration(each)}, each)...)
				ideal += s.ideal
			}
			speeds := slices.Repeat([]float64{1}, machines)
			even := ideal.Seconds() / float64(machines) / schedule(times, speeds)
			speeds[0] = 0.5
			uneven := ideal.Seconds() / (float64(machines) - 0.5) / schedule(times, speeds)
			fmt.Printf("| %d | %d | %d | %.1f%% | %.1f%% |\n", 8*machines, machines, each, 100*even, 100*uneven)
		}
	}
}

// schedule returns the seconds after which all shards are finished, if each machine takes the next shard when it is
// free. The argument shards has the time of each shard on a machine of speed 1. The argument speeds has the relative
// speed of each machine.
func schedule(shards []time.Duration, speeds []float64) float64 {
	free := make([]float64, len(speeds)) // time in seconds at which each machine is free
	for _, s := range shards {
		first := slices.Index(free, slices.Min(free))
		free[first] += s.Seconds() / speeds[first]
	}
	return slices.Max(free)
}
