package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"seqembed/internal/monitor"
	"seqembed/internal/seqio"
	"seqembed/kernels"
	"seqembed/kernels/cuda"
	"seqembed/pool"
	"seqembed/transformer"
)

const profileUsage = `embed profile measures the speed of a model on a device of this machine, by the number of tokens in a batch.
It prints a table and recommends a number, which later runs take where no batch size is given.

Usage:
  embed profile [flags] [MODEL]

MODEL is what --dnabert-model and --esm-model take. Without it the models of these flags are measured, one after the
other. Sequences are random, of 50 to 500 tokens. The machine must have nothing
else to do.

Flags: those of embed about models and about compute (embed --help). Of several GPUs the first is measured.
  -h, --help   this page
`

// profiling limits the measurements of embed profile. Tests replace it.
var profiling = struct {
	least, most   int           // smallest and largest number of tokens in a batch
	time, longest time.Duration // least time of a measurement, and the time of a measurement after which sweep ends
}{1024, 65536, 3 * time.Second, 30 * time.Second}

// goodRate is a share of the best rate. embed profile recommends the smallest batch that reaches it, because a larger
// batch takes more memory.
const goodRate = 0.98

// profile is the command "embed profile".
func profile(ctx context.Context, m machine, args, environ []string, stdout, stderr io.Writer) (code int, err error) {
	s, _, err := parse(args, environ)
	switch {
	case err != nil:
		return exitUsage, err
	case s.help:
		_, err := io.WriteString(stdout, profileUsage)
		return exitCode(err, 0, 0), err
	case len(s.inputs) > 1:
		return exitUsage, usagef("embed profile takes one model")
	}
	c := &command{settings: s, stdout: stdout, machine: m}
	screen, terminal := newScreen(stderr)
	if c.log, err = newLog(s, screen, terminal && colored(environ)); err != nil {
		return exitUsage, err
	}
	c.progress = newProgress(s, c.log, screen, false)
	if err := c.check(); err != nil {
		return exitCode(err, 0, 0), err
	}
	alphabets := []seqio.Alphabet{seqio.DNA, seqio.Protein}
	if len(s.inputs) == 1 {
		a, err := choose(ctx, c, s.inputs[0])
		if err != nil {
			return exitCode(err, 0, 0), err
		}
		alphabets = []seqio.Alphabet{a}
	}
	processors, err := c.openProcessors()
	if err != nil {
		return exitCode(err, 0, 0), err
	}
	defer closeAll(processors)
	for _, a := range alphabets {
		model, err := c.openOrPull(ctx, a)
		if err == nil {
			err = profiler{c, model, processors[0]}.profile(ctx)
			model.checkpoint.Close()
		}
		if err != nil {
			return exitCode(err, 0, 0), err
		}
	}
	return exitDone, nil
}

// choose selects the named model for its alphabet, as --esm-model or --dnabert-model would, and returns the alphabet.
func choose(ctx context.Context, c *command, name string) (seqio.Alphabet, error) {
	checkpoint, err := openAny(ctx, c, name)
	if err != nil {
		return seqio.Unknown, err
	}
	defer checkpoint.Close()
	for i := range c.families {
		f := &c.families[i]
		if f.Family == checkpoint.Config.Family {
			f.model = name
			c.given = func(flag string) bool { return flag == f.flag("model") }
		}
	}
	return checkpoint.Config.Family.Alphabet, nil
}

// measurement is the speed of a device at one batch size in tokens.
type measurement struct {
	tokens int
	monitor.Device
}

// profiler measures a model on a processor.
type profiler struct {
	*command
	model *model
	on    *processor
}

// profile measures the model, prints the measurements, and stores the recommended number of tokens in a batch.
func (c profiler) profile(ctx context.Context) error {
	m, p := c.model, c.on
	fmt.Fprintf(c.stdout, "%s on %s (%s)\n", m.model, p.name, p.backend)
	// A damaged file of earlier results is reported before the measurements, which take minutes.
	if _, err := allProfiled(); err != nil {
		return err
	}
	list, err := c.sweep(ctx)
	if err != nil {
		return err
	}
	best, recommended := 0.0, 0
	for _, x := range list {
		best = max(best, float64(x.TokensPerSecond))
	}
	table := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "tokens in a batch\ttokens/s\tof the best\tmemory\tGPU\t")
	for _, x := range list {
		share := float64(x.TokensPerSecond) / best
		if recommended == 0 && share >= goodRate {
			recommended = x.tokens
		}
		fmt.Fprintf(table, "%s\t%s\t%.0f%%\t%s\t%s\t\n", grouped(int64(x.tokens)), grouped(int64(x.TokensPerSecond)), 100*share,
			(x.PeakMemory / (1 << 30)).Text("%.1f GiB"), x.MeanUtilization.Text("%.0f%%"))
	}
	table.Flush()
	if err := setProfiled(profiled{Model: m.checkpoint.Label, Backend: p.backend, DType: p.dtype, Tokens: recommended, TokensPerSecond: int64(best)}); err != nil {
		return fmt.Errorf("the recommended number of tokens cannot be stored: %w; --%s %d gives it to a run", err, m.flag("batch-size"), recommended)
	}
	_, err = fmt.Fprintf(c.stdout, "recommended: %s tokens; runs without --%s take it now (%s)\n", grouped(int64(recommended)), m.flag("batch-size"), profilePath())
	return err
}

// sweep measures growing numbers of tokens in a batch, up to profiling.most. It ends earlier when the memory is too
// small, when a measurement takes too long, or when two doublings in a row have not raised the rate by more than 1%.
func (c profiler) sweep(ctx context.Context) (list []measurement, err error) {
	m, p := c.model, c.on
	m.batch, m.columns = profiling.least, transformer.Columns(m.layers, transformer.Mean)
	e := &embedder{processor: p, progress: c.progress}
	if err := e.open(m); err != nil {
		e.failed = true
		return nil, errors.Join(err, e.Close())
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	pci := ""
	if gpu, ok := p.opened.(interface{ Device() cuda.Device }); ok {
		pci = gpu.Device().PCI
	}
	var current atomic.Pointer[monitor.Run]
	defer c.watchSensors([]string{pci}, func(pci string, s monitor.Sample) {
		if r := current.Load(); r != nil {
			r.Sample(pci, s)
		}
	})()
	best := monitor.Value(0)
	for tokens, without := e.budget, 0; tokens <= profiling.most && without < 2; tokens *= 2 {
		batch := randomBatch(tokens)
		took := time.Now()
		_, err := e.Start(batch)() // not measured: the first batch may also compile kernels
		run := monitor.NewRun()
		run.Plan(m.model, map[string]int64{})
		run.Begin()
		run.DeviceOpening(p.name, pci)
		run.DeviceReady(p.name)
		current.Store(run)
		if err == nil {
			err = e.measure(ctx, batch, run)
		}
		switch {
		case errors.Is(err, kernels.ErrOutOfMemory) && len(list) > 0:
			return list, nil
		case err != nil:
			return nil, err
		}
		x := measurement{tokens, run.Snapshot().Models[0].Devices[0]}
		list = append(list, x)
		if without++; x.TokensPerSecond > 1.01*best {
			best, without = x.TokensPerSecond, 0
		}
		if time.Since(took) > profiling.longest {
			break
		}
	}
	return list, nil
}

// measure computes a batch again and again, for at least profiling.time and at least twice, and counts each computed
// batch in run. As in a run of embed, a GPU is given the next batch before it has finished the previous one.
func (e *embedder) measure(ctx context.Context, b kernels.Batch, run *monitor.Run) (err error) {
	var inFlight []func() ([][]float32, error)
	defer func() {
		for _, finish := range inFlight {
			_, last := finish()
			err = cmp.Or(err, last)
		}
	}()
	for began, n := time.Now(), 0; n < 2 || time.Since(began) < profiling.time; n++ {
		if ctx.Err() != nil {
			return pool.ErrInterrupted
		}
		for len(inFlight) <= e.processor.ahead {
			inFlight = append(inFlight, e.Start(b))
		}
		_, err := inFlight[0]()
		inFlight = inFlight[1:]
		if err != nil {
			return err
		}
		run.Add(monitor.Batch{Device: e.processor.name, Sequences: b.Sequences(), Tokens: len(b.IDs), Budget: len(b.IDs)})
	}
	run.End()
	return nil
}

// randomBatch returns a batch with the given number of tokens. The sequences have 50 to 500 tokens, except perhaps the
// last. The ids 5 to 23 are no special tokens in the vocabulary of any family of models.
func randomBatch(tokens int) (b kernels.Batch) {
	rng := rand.New(rand.NewPCG(1, 1))
	for left := tokens; left > 0; {
		ids := make([]int32, min(left, 50+rng.IntN(451)))
		for i := range ids {
			ids[i] = 5 + rng.Int32N(19)
		}
		b.Append(ids)
		left -= len(ids)
	}
	return b
}
