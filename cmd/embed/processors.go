package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"seqembed/kernels"
	"seqembed/kernels/cpu"
	"seqembed/kernels/cuda"
	"seqembed/pool"
	"seqembed/transformer"
)

// cpuBudget is the default number of tokens in a batch on a CPU.
const cpuBudget = 8192

// processor is a GPU or the CPU. The DNA model and the protein model use it one after the other. The processor is
// opened once and, after a failure, again for the next model.
type processor struct {
	name    string // name in messages
	backend string // result of kernels.Backend.Name
	dtype   string
	ahead   int // number of batches that are started while another one computes
	isGPU   bool
	open    func() (kernels.Backend, error)
	opened  kernels.Backend // nil while the backend is closed: at first, and after a failure
	gone    bool            // whether the processor was given up and must not be opened again

	reported []string // lines that logProducts has already written
}

// ready returns the backend, which it opens if necessary.
func (p *processor) ready() (kernels.Backend, error) {
	if p.gone {
		return nil, errors.New("it made no progress before")
	}
	if p.opened == nil {
		b, err := p.open()
		if err != nil {
			return nil, err
		}
		p.opened, p.backend = b, b.Name()
	}
	return p.opened, nil
}

// Close closes the backend if it is open.
func (p *processor) Close() error {
	if p.opened == nil {
		return nil
	}
	b := p.opened
	p.opened = nil
	return b.Close()
}

// openProcessors opens the GPUs that --gpus selects. It opens the CPU for --gpus none, and for --gpus all if no GPU can
// be used.
func (c *command) openProcessors() ([]*processor, error) {
	ordinals, because := c.ordinals, "--gpus "+c.gpus
	if c.gpus == "all" {
		report := c.findGPUs()
		for _, d := range report.Devices {
			if d.Err != nil {
				c.log.Warn("skipping a GPU", "device", deviceText(d), "reason", oneLine(d.Err))
			}
		}
		if ordinals = report.Usable(); len(ordinals) == 0 {
			because = "there is no GPU that can be used"
			if report.Err != nil {
				because = oneLine(report.Err)
			}
			level := slog.LevelInfo
			if report.DriverVersion != "" || len(report.Devices) > 0 {
				level = slog.LevelWarn // the user may expect a GPU to be used
			}
			c.log.Log(context.Background(), level, "computing on the CPU", "reason", because)
		}
	}
	if len(ordinals) == 0 {
		if c.products == kernels.FP16 {
			err := fmt.Errorf("--dtype fp16 needs a GPU, the CPU takes fp32 or bf16: %s", because)
			if c.gpus == "none" {
				return nil, &usageError{err}
			}
			return nil, err
		}
		p := c.onCPU()
		b, err := p.ready()
		if err == nil {
			warnPortable(c.log, b)
		}
		return []*processor{p}, err
	}
	var list []*processor
	for _, ordinal := range ordinals {
		p := c.onGPU(ordinal)
		if _, err := p.ready(); err != nil {
			closeAll(list)
			return nil, fmt.Errorf("--gpus %s: device %d: %w (embed devices lists what was found)", c.gpus, ordinal, err)
		}
		list = append(list, p)
	}
	list = c.oneKind(list)
	for _, p := range list {
		c.log.Info("computing on a GPU", "device", p.name, "backend", p.backend)
	}
	logWithoutCublas(c.log, list)
	logUntested(c.log, list)
	return list, nil
}

// oneKind returns the processors whose backend has the most frequent name. If several names are equally frequent, it
// takes the first of these names. It logs and closes the other processors, because the results of a run must not depend
// on the processor that computed them.
func (c *command) oneKind(list []*processor) (kept []*processor) {
	count := map[string]int{}
	for _, p := range list {
		count[p.backend]++
	}
	byCount := func(a, b *processor) int { return cmp.Compare(count[a.backend], count[b.backend]) }
	most := slices.MaxFunc(list, byCount).backend
	for _, p := range list {
		if p.backend == most {
			kept = append(kept, p)
			continue
		}
		c.log.Warn("skipping a GPU of another kind: its results would differ in the last bits", "device", p.name,
			"backend", p.backend, "used", most)
		p.Close()
	}
	return kept
}

// logUntested logs once if a GPU is of a kind on which the CUDA backend has not been tested.
func logUntested(log *slog.Logger, list []*processor) {
	for _, p := range list {
		if b, ok := p.opened.(interface{ Device() cuda.Device }); ok && !b.Device().Tested() {
			log.Info("the CUDA backend has been tested only on an "+cuda.TestedOn+
				": compare some embeddings with those of --gpus none", "device", p.name)
			return
		}
	}
}

func closeAll(list []*processor) {
	for _, p := range list {
		p.Close()
	}
}

// parseGPUs parses the value of --gpus. It returns nil for "all" and "none".
func parseGPUs(gpus string) (ordinals []int, err error) {
	if gpus == "all" || gpus == "none" {
		return nil, nil
	}
	for index := range strings.SplitSeq(gpus, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(index))
		if err != nil || n < 0 {
			return nil, usagef("--gpus: %q is neither all, none nor a list of indices", gpus)
		}
		ordinals = append(ordinals, n)
	}
	return ordinals, nil
}

// onCPU returns the processor for the CPU. If --dtype bf16 is given and the CPU lacks instructions for bfloat16, the
// processor stores the weights in bfloat16 and computes in float32.
func (c *command) onCPU() *processor {
	if c.threads > runtime.GOMAXPROCS(0) { // --threads exceeds the limit of a scheduler or a control group
		runtime.GOMAXPROCS(min(c.threads, runtime.NumCPU()))
	}
	p := &processor{name: fmt.Sprintf("cpu (%d threads)", cmp.Or(c.threads, runtime.GOMAXPROCS(0))), dtype: "fp32"}
	switch {
	case c.products == kernels.BF16 && cpu.HasBF16():
		p.dtype = "bf16"
	case c.products == kernels.BF16:
		p.dtype = "fp32, bf16 weights"
		c.log.Info("this CPU has no instructions for bf16: it stores weights in bf16, which halves their memory, and computes in fp32")
	}
	p.open = func() (kernels.Backend, error) {
		return cpu.Open(cpu.Options{Threads: c.threads, BF16: c.products == kernels.BF16}), nil
	}
	return p
}

// warnPortable logs a warning if the backend computes with its portable kernels, which are written in Go and slower
// than those in assembly.
func warnPortable(log *slog.Logger, b kernels.Backend) {
	if p, ok := b.(interface{ Portable() bool }); ok && p.Portable() {
		// docs/performance.md has the measurements: portable Go takes 14 to 20 times as long as AVX-512.
		log.Warn("no kernels in assembly for this processor (they need AVX2, AVX-512 or arm64): portable Go computes, 14 to 20 times slower",
			"backend", b.Name())
	}
}

// onGPU returns the processor for a GPU. One batch is started while the previous one computes.
func (c *command) onGPU(ordinal int) *processor {
	dtype := c.products
	if dtype == kernels.Auto {
		dtype = kernels.BF16
	}
	return &processor{name: fmt.Sprintf("cuda:%d", ordinal), dtype: dtype.String(), ahead: 1, isGPU: true,
		open: func() (kernels.Backend, error) { return c.openGPU(ordinal, dtype) }}
}

// device returns the processor as a device on which package pool embeds with one model.
func (p *processor) device(m *model, o *progress) pool.Device {
	return pool.Device{Name: p.name, Ahead: p.ahead, Open: func() (pool.Embedder, error) {
		e := &embedder{processor: p, progress: o}
		if err := e.open(m); err != nil {
			e.failed = true
			return nil, errors.Join(err, e.Close())
		}
		return e, nil
	}, Abandon: p.abandon}
}

// abandon gives up the processor while one of its calls may still be running. It does not close the backend: closing
// might never return, and would free memory that the call uses.
func (p *processor) abandon() { p.opened, p.gone = nil, true }

// embedder embeds batches with one model on one processor. It implements pool.Embedder.
type embedder struct {
	*transformer.Encoder
	model     *transformer.Model
	budget    int // number of tokens in a batch
	processor *processor
	progress  *progress
	failed    bool // whether the device has failed, so that Close also closes the processor
}

// budgeter is implemented by backends that can choose the number of tokens in a batch.
type budgeter interface {
	Budget(*kernels.Program) (int, error)
}

// open loads the weights, chooses the batch size in tokens unless a flag gives it, and compiles the model. It halves
// the batch size until the memory suffices.
func (e *embedder) open(m *model) error {
	b, err := e.processor.ready()
	if err != nil {
		return err
	}
	if e.model, err = transformer.Load(m.checkpoint, b); err != nil {
		return err
	}
	if e.budget, err = e.chooseBudget(m, b); err != nil {
		return err
	}
	for {
		limits := kernels.Limits{Tokens: e.budget, Sequences: pool.MaxSequences(e.budget)}
		encoder, err := transformer.NewEncoder(e.model, b, limits, m.columns)
		if err == nil {
			e.Encoder = encoder
			return nil
		}
		if !errors.Is(err, kernels.ErrOutOfMemory) || e.budget < 2 {
			return err
		}
		e.budget /= 2
		e.progress.BudgetHalved(e.processor.name, e.budget, err)
	}
}

// chooseBudget returns the number of tokens in a batch: the value of the flag, the number that embed profile has
// stored, or the default of the device, in this order. On a GPU a stored number above the default is reduced to the
// default, which depends on the free memory.
func (e *embedder) chooseBudget(m *model, b kernels.Backend) (tokens int, err error) {
	if m.batch > 0 {
		return m.batch, nil
	}
	known, err := findProfiled(m.checkpoint.Label, e.processor.backend, e.processor.dtype)
	if err != nil {
		e.progress.log.Warn("the results of embed profile cannot be read", "error", oneLine(err))
	}
	device, ok := b.(budgeter)
	if !ok {
		return cmp.Or(known, cpuBudget), nil
	}
	tokens, err = device.Budget(transformer.Program(e.model, m.columns))
	if known > 0 {
		tokens = min(known, tokens)
	}
	return tokens, err
}

// Start starts a batch. finish waits for its results, and sets e.failed after any error except kernels.ErrOutOfMemory.
func (e *embedder) Start(b kernels.Batch) (finish func() ([][]float32, error)) {
	stop := func() {}
	if len(b.IDs) > pool.LongTokens && b.Len(0) > pool.LongTokens {
		if done := e.Encoder.Watch(b); done != nil {
			stop = e.progress.watch(e.processor.name, done)
		}
	}
	wait := e.Encoder.Start(b)
	return func() ([][]float32, error) {
		results, err := wait()
		stop()
		e.failed = e.failed || err != nil && !errors.Is(err, kernels.ErrOutOfMemory)
		return results, err
	}
}

// Budget returns the number of tokens in a batch.
func (e *embedder) Budget() int { return e.budget }

// Close frees the memory of the activations, then that of the weights. If the device has failed, it closes the
// processor, too.
func (e *embedder) Close() (err error) {
	if e.Encoder != nil {
		e.processor.logProducts(e.progress.log)
		err = e.Encoder.Close()
	}
	if e.model != nil {
		err = errors.Join(err, e.model.Close())
	}
	if e.failed {
		err = errors.Join(err, e.processor.Close())
	}
	return err
}
