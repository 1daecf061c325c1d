//go:build unix

package pool

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"seqembed/internal/seqio"
	"seqembed/internal/store"
	"seqembed/kernels"
	"seqembed/tokenizer"
	"seqembed/transformer"
)

// paced is a fake Embedder that computes its batches one after the other at a given rate. If rate is 0, a batch takes
// no time.
type paced struct {
	dim, budget int
	rate        float64   // rate of the device, in tokens per second
	until       time.Time // time at which all batches started so far are finished
}

func (d *paced) Budget() int  { return d.budget }
func (d *paced) Close() error { return nil }

func (d *paced) Start(b kernels.Batch) func() ([][]float32, error) {
	if d.rate > 0 {
		if now := time.Now(); d.until.Before(now) {
			d.until = now // the device was idle
		}
		d.until = d.until.Add(time.Duration(float64(len(b.IDs)) / d.rate * 1e9))
	}
	until := d.until
	return func() ([][]float32, error) {
		time.Sleep(time.Until(until))
		results := [][]float32{make([]float32, b.Sequences()*d.dim)}
		for i := range results[0] {
			results[0][i] = float32(i%97) * 0.013
		}
		return results, nil
	}
}

var benchParts = flag.Int("pool.parts", DefaultPartRecords, "Job.PartRecords of BenchmarkHost")

// BenchmarkHost measures the work on this machine's cores: reading, tokenizing, packing, queueing and writing. The
// devices are fake: they take no time, or the time that follows from a given rate. The rate of a GPU in million tokens
// per second, multiplied by the metric core-s/Mtoken, is the number of cores that keep the GPU busy. The metric %busy
// is the percentage of the time in which the devices have work.
func BenchmarkHost(b *testing.B) {
	for _, c := range []struct {
		name     string
		letters  int
		files    int
		records  int // number of records in all files together
		dim      int
		rate     float64
		alphabet string
		tok      tokenizer.Tokenizer
	}{
		{"dna/72", 72, 1, 100_000, 768, 2e6, "ACGT", tokenizer.SyntheticDNA()},
		{"dna/500", 500, 1, 60_000, 768, 2e6, "ACGT", tokenizer.SyntheticDNA()},
		{"dna/500 in 60 files", 500, 60, 60_000, 768, 2e6, "ACGT", tokenizer.SyntheticDNA()},
		{"dna/10000", 10_000, 1, 3_000, 768, 2e6, "ACGT", tokenizer.SyntheticDNA()},
		{"protein/350", 350, 1, 10_000, 1280, 4.5e5, "LAGVSERTIDPKQNFYMHWC", transformer.ESM2.NewTokenizer()},
	} {
		rng, dir := rand.New(rand.NewPCG(1, 2)), b.TempDir()
		for file := range c.files {
			var text strings.Builder
			for i := range c.records / c.files {
				fmt.Fprintf(&text, ">record_%d\n", i)
				for range c.letters {
					text.WriteByte(c.alphabet[rng.IntN(len(c.alphabet))])
				}
				text.WriteByte('\n')
			}
			writeFile(b, filepath.Join(dir, fmt.Sprintf("%d.fa", file)), text.String())
		}
		for _, d := range []struct {
			devices int
			rate    float64 // rate of each device, in tokens per second
		}{{1, 0}, {4, 0}, {1, c.rate}, {2, c.rate}} {
			b.Run(fmt.Sprintf("%s/devices=%d/rate=%.0f", c.name, d.devices, d.rate), func(b *testing.B) {
				inputs, _, err := seqio.Expand(dir, seqio.Unknown)
				if err != nil {
					b.Fatal(err)
				}
				dna, protein, failed, err := Plan(b.Context(), inputs, seqio.Options{})
				if err != nil || len(failed) > 0 {
					b.Fatal(failed, err)
				}
				tokens, cpu := int64(0), cpuTime()
				for b.Loop() {
					job := &Job{
						Files: append(dna, protein...), Tokenizer: c.tok, Observer: &recorder{}, PartRecords: *benchParts,
						Output: Output{Dir: b.TempDir(), Label: "m", Format: store.Parquet, Dim: c.dim, Columns: []store.Column{{Pooling: store.Mean, Layer: 1}}, Template: store.Entry{Model: "m"}},
					}
					for i := range d.devices {
						job.Devices = append(job.Devices, Device{Name: fmt.Sprint(i), Ahead: 1,
							Open: func() (Embedder, error) { return &paced{dim: c.dim, budget: 32768, rate: d.rate}, nil }})
					}
					summary, err := job.Run(context.Background())
					if err != nil || summary.Records != int64(c.records) {
						b.Fatal(summary, err)
					}
					tokens += summary.Tokens
				}
				b.ReportMetric(float64(tokens)/b.Elapsed().Seconds()/1e6, "Mtokens/s")
				if d.rate > 0 {
					b.ReportMetric(100*float64(tokens)/d.rate/float64(d.devices)/b.Elapsed().Seconds(), "%busy")
				}
				b.ReportMetric((cpuTime()-cpu).Seconds()/float64(tokens)*1e6, "core-s/Mtoken")
			})
		}
	}
}

// cpuTime returns the CPU time used by all threads of this process.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
