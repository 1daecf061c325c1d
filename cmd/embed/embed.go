package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"seqembed/internal/seqio"
	"seqembed/internal/store"
	"seqembed/kernels"
	"seqembed/kernels/cuda"
	"seqembed/pool"
	"seqembed/transformer"
)

// version is the program's; it is part of every manifest.
const version = "0.1.0"

// maxThreads is more than any machine has cores.
const maxThreads = 1 << 12

// maxBudget bounds the tokens of a batch far above what a device holds, so that
// sizes in bytes cannot overflow.
const maxBudget = 1 << 24

// run is the whole program: it returns the exit code.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	return runOn(ctx, thisMachine, args, environ, stdout, stderr)
}

func runOn(ctx context.Context, m machine, args, environ []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == "devices" {
		if err := devices(m, args[1:], environ, stdout); err != nil {
			printError(stderr, err)
			return exitCode(err, 0, 0)
		}
		return exitDone
	}
	s, groups, err := parse(args, environ)
	switch {
	case err != nil:
		printError(stderr, err)
		return exitUsage
	case s.help:
		printHelp(stdout, groups)
		return exitDone
	case s.version:
		fmt.Fprintln(stdout, version)
		return exitDone
	}
	c := &command{settings: s, stdout: stdout, machine: m}
	if c.log, err = newLog(s, stderr); err != nil {
		printError(stderr, err)
		return exitUsage
	}
	c.progress = newProgress(s, c.log, stderr)
	release := context.AfterFunc(ctx, c.progress.interrupted)
	err = c.embed(ctx)
	release()
	c.progress.end()
	err = withHint(err)
	c.printSummary()
	switch {
	case err == nil:
	case s.logFormat == "json":
		c.log.Error(oneLine(err))
	default:
		printError(stderr, err)
	}
	return exitCode(err, c.done(), len(c.total.Failed))
}

// machine is how GPUs are found and opened, so that tests can do without.
type machine struct {
	findGPUs func() cuda.Report
	openGPU  func(ordinal int, dtype kernels.DType) (kernels.Backend, error)
}

var thisMachine = machine{
	findGPUs: cuda.Devices,
	openGPU: func(ordinal int, dtype kernels.DType) (kernels.Backend, error) {
		return cuda.Open(ordinal, cuda.Options{DType: cuda.DType(dtype)})
	},
}

// command is one run of embed.
type command struct {
	*settings
	stdout   io.Writer
	log      *slog.Logger
	progress *progress
	machine
	total pool.Summary // over both models
}

// embed checks flags, inputs, models and settings before anything is computed,
// then runs DNA to completion, then protein.
func (c *command) embed(ctx context.Context) error {
	reading, err := c.reading()
	if err != nil {
		return err
	}
	if err := c.check(); err != nil {
		return err
	}
	inputs, absent, err := c.expand()
	if err != nil {
		return err
	}
	processors, err := c.openProcessors()
	if err != nil {
		return err
	}
	defer closeAll(processors)

	dna, protein, failed, err := pool.Plan(ctx, inputs, reading)
	if err != nil {
		return err
	}
	if err := checkNames(slices.Concat(dna, protein), false); err != nil {
		return err
	}
	for _, f := range slices.Concat(dna, protein) {
		c.showAlphabet(f)
	}
	for _, f := range slices.Concat(absent, failed) {
		c.progress.FileFailed(f)
		f.Err = withHint(f.Err)
		c.total.Failed = append(c.total.Failed, f)
	}
	var models []*model
	var jobs []*pool.Job
	for _, part := range []struct {
		flags modelFlags
		name  string
		files []pool.File
	}{{dnabertFlags, c.dnabertModel, dna}, {esmFlags, c.esmModel, protein}} {
		if len(part.files) == 0 {
			continue
		}
		m, err := openModel(part.flags, part.name, c.settings)
		if err != nil {
			return err
		}
		defer m.checkpoint.Close()
		job, err := c.newJob(m, part.files, reading, processors)
		if err != nil {
			return err
		}
		if err := job.Check(); err != nil {
			return err
		}
		models, jobs = append(models, m), append(jobs, job)
	}
	if len(models) == 2 && models[0].ref.Name == models[1].ref.Name {
		if err := checkNames(slices.Concat(dna, protein), true); err != nil {
			return err
		}
	}
	for i, m := range models {
		if m.synthetic() {
			c.log.Warn("the weights are synthetic: these embeddings carry no biology", "model", m.name)
		}
		c.progress.begin(m.name, m.config, jobs[i].Files)
		summary, err := jobs[i].Run(ctx)
		c.progress.end()
		c.merge(summary)
		if err != nil {
			return c.writeFailures(err)
		}
	}
	return c.writeFailures(nil)
}

// showAlphabet logs how an input is read, and why.
func (c *command) showAlphabet(f pool.File) {
	found := f.Finding
	switch {
	case found.Contradicts != "":
		c.log.Warn(fmt.Sprintf("the letters are those of %s, whatever the extension %s says; --dna or --protein decides",
			found.Alphabet, found.Contradicts), "input", f.Path)
	case found.Why == "":
		c.log.Info("read as "+found.Alphabet.String(), "input", f.Path, "by", "--"+strings.ToLower(found.Alphabet.String()))
	default:
		c.log.Info("read as "+found.Alphabet.String(), "input", f.Path, "by", found.Why)
	}
}

// checkNames refuses inputs whose outputs would have the same name: those of
// one alphabet, or of both when the two models are called the same.
func checkNames(files []pool.File, oneModel bool) error {
	var inputs []seqio.Input
	for _, f := range files {
		if oneModel {
			f.Alphabet = seqio.Unknown
		}
		inputs = append(inputs, f.Input)
	}
	return seqio.CheckNames(inputs)
}

// writeFailures leaves the list of failed files in the output folder, after a
// run that ended with err, and returns both errors. A run that did nothing
// leaves the list of an earlier one alone.
func (c *command) writeFailures(err error) error {
	if c.done()+len(c.total.Failed) == 0 {
		return err
	}
	unwritable := func(f pool.Failure) bool { return f.Type == pool.OutputFailure }
	told := errors.Is(err, pool.ErrOutput) || slices.ContainsFunc(c.total.Failed, unwritable)
	if listErr := pool.WriteFailures(c.out, c.total.Failed); !told {
		return errors.Join(err, listErr)
	}
	return err
}

// newJob says how files are embedded with one model.
func (c *command) newJob(m *model, files []pool.File, reading seqio.Options, processors []*processor) (*pool.Job, error) {
	sum, err := m.checkpoint.SHA256()
	if err != nil {
		return nil, err
	}
	pooling := transformer.Pooling(c.pool)
	job := &pool.Job{Files: files, Reading: reading, Tokenizer: m.tokenizer, Long: pool.LongPolicy(c.long), MaxLength: m.maxLength(c.settings),
		PerToken: pooling == transformer.PerToken, Force: c.force, Observer: c.progress}
	budget := c.dnabertBatch
	if m.architecture == transformer.ESM2 {
		budget = c.esmBatch
	}
	for _, p := range processors {
		job.Devices = append(job.Devices, p.device(m, pooling, budget, c.progress))
	}
	dtype := processors[0].dtype // all are of one kind
	parameters := map[string]string{
		"pool": c.pool, "layers": m.layerList(), "format": c.format,
		"long": c.long, "max_length": strconv.Itoa(job.MaxLength), "min_length": strconv.Itoa(c.minLength),
		"gaps": c.gaps, "on_bad_record": c.onBad, "duplicates": c.duplicates, "keep_case": strconv.FormatBool(c.keepCase),
	}
	job.Output = pool.Output{
		Dir: c.out, Label: m.ref.Name, Format: store.Format(c.format), Kind: m.kind,
		Dim: m.config.Hidden, Layers: m.layers, PerToken: job.PerToken,
		Meta: map[string]string{"model": m.name, "revision": m.checkpoint.Revision(), "pooling": c.pool, "dtype": dtype,
			"layers": m.layerList(), "seqembed_version": version},
		Template: store.Entry{Model: m.name, Revision: m.checkpoint.Revision(), CheckpointSHA256: sum,
			TokenizerSHA256: m.tokenizer.SHA256(), Parameters: parameters, DType: dtype,
			Backend: processors[0].backend, ProgramVersion: version, LibraryVersions: map[string]string{"go": runtime.Version()}},
	}
	return job, nil
}

// merge adds one model's summary to the total.
func (c *command) merge(s pool.Summary) {
	t := &c.total
	if t.Started.IsZero() {
		t.Started = s.Started
	}
	t.Finished = s.Finished
	t.Files = append(t.Files, s.Files...)
	t.Resumed = append(t.Resumed, s.Resumed...)
	for _, f := range s.Failed {
		f.Err = withHint(f.Err)
		t.Failed = append(t.Failed, f)
	}
	t.Records += s.Records
	t.Tokens += s.Tokens
	t.Letters += s.Letters
	t.Unknown += s.Unknown
	t.Truncated += s.Truncated
	t.Skipped += s.Skipped
}

// done counts the files whose outputs are there.
func (c *command) done() int { return len(c.total.Files) + len(c.total.Resumed) }

// reading turns the flags about records into the reader's options.
func (c *command) reading() (seqio.Options, error) {
	o := seqio.Options{KeepCase: c.keepCase, MinLength: c.minLength}
	switch c.onBad {
	case "error":
	case "skip":
		o.OnBad = seqio.BadSkip
	default:
		return o, usagef("--on-bad-record: %q is neither error nor skip", c.onBad)
	}
	switch c.gaps {
	case "error":
	case "remove":
		o.Gaps = seqio.GapsRemove
	default:
		return o, usagef("--gaps: %q is neither error nor remove", c.gaps)
	}
	switch c.duplicates {
	case "error":
	case "suffix":
		o.Duplicates = seqio.DuplicateSuffix
	default:
		return o, usagef("--duplicates: %q is neither error nor suffix", c.duplicates)
	}
	return o, nil
}

// check looks at the flags that both models share.
func (c *command) check() error {
	if _, err := store.ParseFormat(c.format); err != nil {
		return usagef("--format: %w", err)
	}
	if _, err := transformer.ParsePooling(c.pool); err != nil {
		return usagef("--pool: %w", err)
	}
	if _, err := pool.ParseLongPolicy(c.long); err != nil {
		return usagef("--long: %w", err)
	}
	for _, f := range []struct {
		name       string
		value, max int
	}{
		{"max-length", c.maxLength, math.MaxInt}, {"min-length", c.minLength, math.MaxInt}, {"threads", c.threads, maxThreads},
		{"dnabert-batch-size", c.dnabertBatch, maxBudget}, {"esm-batch-size", c.esmBatch, maxBudget},
	} {
		switch {
		case f.value < 0:
			return usagef("--%s: %d is negative", f.name, f.value)
		case f.value > f.max:
			return usagef("--%s: %d is more than %d", f.name, f.value, f.max)
		}
	}
	if c.format == string(store.VirNucPro) && (len(c.layers) != 1 || c.pool != string(transformer.Mean)) {
		return usagef("--format virnucpro holds one mean vector a record: one layer, and --pool mean")
	}
	if c.out == "" {
		return usagef("--out: the name of the folder is empty")
	}
	if _, err := kernels.ParseDType(c.dtype); err != nil {
		return usagef("--dtype: %w", err)
	}
	_, _, err := parseGPUs(c.gpus)
	return err
}

// expand lists the inputs of all three kinds of argument, and the arguments
// that lead to none.
func (c *command) expand() (inputs []seqio.Input, failed []pool.Failure, err error) {
	for _, part := range []struct {
		args     []string
		alphabet seqio.Alphabet
	}{{c.inputs, seqio.Unknown}, {c.dna, seqio.DNA}, {c.protein, seqio.Protein}} {
		for _, arg := range part.args {
			expanded, leftOut, err := seqio.Expand(arg, part.alphabet)
			for _, l := range leftOut {
				c.log.Warn("files without an extension of FASTA or FASTQ are left out", "folder", l.Folder, "left_out", l.String())
			}
			if errors.Is(err, seqio.ErrNoInput) {
				failed = append(failed, pool.NewFailure(arg, err))
				continue
			}
			if err != nil {
				return nil, nil, err
			}
			inputs = append(inputs, expanded...)
		}
	}
	if len(inputs)+len(failed) == 0 {
		return nil, nil, usagef("no input is given")
	}
	return inputs, failed, seqio.CheckPaths(inputs)
}
