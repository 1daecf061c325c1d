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

// cpuBudget is the tokens of a batch when a CPU computes and none are given.
const cpuBudget = 8192

// processor is a GPU, or all threads of the CPU: one worker of each pool. It is
// opened once, and again for the next model after it has failed.
type processor struct {
	name    string // for people
	backend string // kernels.Backend.Name
	dtype   string
	ahead   int // see pool.Device
	open    func() (kernels.Backend, error)
	opened  kernels.Backend // nil after a failure

	reported []string // what logProducts has said
}

// newProcessor opens a backend for the first time.
func newProcessor(p processor) (*processor, error) {
	var err error
	if p.opened, err = p.open(); err != nil {
		return nil, err
	}
	p.backend = p.opened.Name()
	return &p, nil
}

// ready gives the backend, open.
func (p *processor) ready() (kernels.Backend, error) {
	var err error
	if p.opened == nil {
		p.opened, err = p.open()
	}
	return p.opened, err
}

// Close lets go of the device.
func (p *processor) Close() error {
	if p.opened == nil {
		return nil
	}
	b := p.opened
	p.opened = nil
	return b.Close()
}

// openProcessors opens what --gpus names, or the CPU.
func (c *command) openProcessors() ([]*processor, error) {
	ordinals, explicit, err := parseGPUs(c.gpus)
	if err != nil {
		return nil, err
	}
	dtype, err := kernels.ParseDType(c.dtype)
	if err != nil {
		return nil, usagef("--dtype: %w", err)
	}
	because := fmt.Sprintf("--gpus %s", c.gpus)
	if !explicit && c.gpus != "none" {
		report := c.findGPUs()
		for _, d := range report.Devices {
			if d.Err != nil {
				c.log.Warn("a GPU is left alone", "device", deviceText(d), "reason", oneLine(d.Err))
			}
		}
		if ordinals = report.Usable(); len(ordinals) == 0 {
			because = "there is no GPU that can be used"
			if report.Err != nil {
				because = oneLine(report.Err)
			}
			level := slog.LevelInfo
			if report.DriverVersion != "" || len(report.Devices) > 0 {
				level = slog.LevelWarn // somebody may have counted on a GPU
			}
			c.log.Log(context.Background(), level, "the CPU computes", "reason", because)
		}
	}
	if len(ordinals) == 0 {
		if dtype == kernels.FP16 {
			err := fmt.Errorf("--dtype fp16 needs a GPU, the CPU takes fp32 or bf16: %s", because)
			if c.gpus == "none" {
				return nil, &usageError{err}
			}
			return nil, err
		}
		one, err := newProcessor(c.onCPU(dtype))
		if err != nil {
			return nil, err
		}
		return []*processor{one}, nil
	}
	var list []*processor
	for _, ordinal := range ordinals {
		one, err := newProcessor(c.onGPU(ordinal, dtype))
		if err != nil {
			closeAll(list)
			return nil, fmt.Errorf("--gpus %s: device %d: %w (embed devices lists what was found)", c.gpus, ordinal, err)
		}
		list = append(list, one)
	}
	list = c.oneKind(list)
	for _, p := range list {
		c.log.Info("a GPU computes", "device", p.name, "backend", p.backend)
	}
	logWithoutCublas(c.log, list)
	logUntested(c.log, list)
	return list, nil
}

// oneKind keeps the processors of the most frequent backend, the first among equals: the results of a run must not depend
// on the processor that computed them. It names the others and closes them.
func (c *command) oneKind(list []*processor) (kept []*processor) {
	count := map[string]int{}
	for _, p := range list {
		count[p.backend]++
	}
	most := slices.MaxFunc(list, func(a, b *processor) int { return cmp.Compare(count[a.backend], count[b.backend]) }).backend
	for _, p := range list {
		if p.backend == most {
			kept = append(kept, p)
			continue
		}
		c.log.Warn("a GPU of another kind is left alone: its results would differ in the last bits", "device", p.name,
			"backend", p.backend, "used", most)
		closeAll([]*processor{p})
	}
	return kept
}

// logUntested says once that a GPU is of a kind on which the CUDA backend's
// tests have not run.
func logUntested(log *slog.Logger, list []*processor) {
	for _, p := range list {
		if b, ok := p.opened.(interface{ Device() cuda.Device }); ok && !b.Device().Tested() {
			log.Info("the CUDA backend has been tested only on an "+cuda.TestedOn+": compare some embeddings with those of --gpus none", "device", p.name)
			return
		}
	}
}

func closeAll(list []*processor) {
	for _, p := range list {
		p.Close()
	}
}

// parseGPUs reads --gpus: explicit says that the user has named the devices.
func parseGPUs(gpus string) (ordinals []int, explicit bool, err error) {
	if gpus == "all" || gpus == "none" {
		return nil, false, nil
	}
	for index := range strings.SplitSeq(gpus, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(index))
		if err != nil || n < 0 {
			return nil, false, usagef("--gpus: %q is neither all, none nor a list of indices", gpus)
		}
		ordinals = append(ordinals, n)
	}
	return ordinals, true, nil
}

// onCPU is the CPU, which computes in float32 whatever its weights are kept in.
func (c *command) onCPU(dtype kernels.DType) processor {
	p := processor{name: fmt.Sprintf("cpu (%d threads)", cmp.Or(c.threads, runtime.GOMAXPROCS(0))), dtype: "fp32"}
	if dtype == kernels.BF16 {
		p.dtype = "fp32, bf16 weights"
		c.log.Info("the CPU keeps weights in bf16 and computes in fp32: this halves their memory and gains no speed")
	}
	p.open = func() (kernels.Backend, error) {
		return cpu.Open(cpu.Options{Threads: c.threads, BF16Weights: dtype == kernels.BF16}), nil
	}
	return p
}

// onGPU is a device. The next batch is started while one computes.
func (c *command) onGPU(ordinal int, dtype kernels.DType) processor {
	if dtype == kernels.Auto {
		dtype = kernels.BF16
	}
	return processor{name: fmt.Sprintf("cuda:%d", ordinal), dtype: dtype.String(), ahead: 1,
		open: func() (kernels.Backend, error) { return c.openGPU(ordinal, dtype) }}
}

// device is the processor as the pool sees it, for one model.
func (p *processor) device(m *model, pooling transformer.Pooling, budget int, o *progress) pool.Device {
	return pool.Device{Name: p.name, Ahead: p.ahead, Open: func() (pool.Embedder, error) {
		b, err := p.ready()
		if err != nil {
			return nil, err
		}
		e, err := newEmbedder(b, m, pooling, budget, func(budget int, err error) { o.BudgetHalved(p.name, budget, err) })
		if err != nil {
			return nil, errors.Join(err, p.Close())
		}
		e.processor = p
		e.finished = func() { p.logProducts(o.logger(), b) }
		return e, nil
	}}
}

// embedder is an encoder with its model. It implements pool.Embedder.
type embedder struct {
	*transformer.Encoder
	model     *transformer.Model
	budget    int
	processor *processor
	failed    bool   // the device has failed
	finished  func() // called by Close, before anything is freed
}

// Start passes a batch on and notes whether the device fails.
func (e *embedder) Start(b kernels.Batch) (finish func() ([][]float32, error)) {
	wait := e.Encoder.Start(b)
	return func() ([][]float32, error) {
		results, err := wait()
		e.failed = e.failed || err != nil && !errors.Is(err, kernels.ErrOutOfMemory)
		return results, err
	}
}

// budgeter is a backend that knows how many tokens suit its memory.
type budgeter interface {
	Budget(p *kernels.Program) (int, error)
}

// newEmbedder loads the weights, sizes the batches where no budget is given,
// and allocates for them: for fewer, when memory does not suffice.
func newEmbedder(b kernels.Backend, m *model, pooling transformer.Pooling, budget int, halved func(int, error)) (e *embedder, err error) {
	loaded, err := transformer.Load(m.checkpoint, b)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, loaded.Close())
		}
	}()
	if budget == 0 {
		budget = cpuBudget
		if device, ok := b.(budgeter); ok {
			if budget, err = device.Budget(transformer.Program(loaded, pooling, m.layers)); err != nil {
				return nil, err
			}
		}
	}
	for {
		limits := kernels.Limits{Tokens: budget, Sequences: pool.MaxSequences(budget)}
		encoder, err := transformer.NewEncoder(loaded, b, limits, pooling, m.layers)
		if err == nil {
			return &embedder{Encoder: encoder, model: loaded, budget: budget}, nil
		}
		if !errors.Is(err, kernels.ErrOutOfMemory) || budget < 2 {
			return nil, err
		}
		budget /= 2
		halved(budget, err)
	}
}

// Budget is the tokens of a batch.
func (e *embedder) Budget() int { return e.budget }

// Close frees the activations, then the weights; a device that has failed is
// let go.
func (e *embedder) Close() error {
	e.finished()
	err := errors.Join(e.Encoder.Close(), e.model.Close())
	if e.failed {
		err = errors.Join(err, e.processor.Close())
	}
	return err
}
