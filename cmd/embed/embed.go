package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"seqembed/internal/monitor"
	"seqembed/internal/seqio"
	"seqembed/internal/store"
	"seqembed/kernels"
	"seqembed/kernels/cuda"
	"seqembed/pool"
)

// maxThreads is the maximum of --threads.
const maxThreads = 1 << 12

// maxBudget is the maximum number of tokens in a batch, small enough that the sizes of the batch's buffers in bytes do
// not overflow.
const maxBudget = 1 << 24

// runOn runs the program and returns its exit code.
func runOn(ctx context.Context, m machine, args, environ []string, stdout, stderr io.Writer) int {
	if c, ok := findSubcommand(args); ok {
		code, err := c.run(ctx, m, args[1:], environ, stdout, stderr)
		if c.continues || !errors.Is(err, pool.ErrInterrupted) {
			err = withHint(err)
		}
		if err != nil {
			printErrorOf(stderr, "embed "+c.name, err)
		}
		return code
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
		fmt.Fprintln(stdout, versionLine())
		return exitDone
	}
	c := &command{settings: s, stdout: stdout, stderr: stderr, machine: m}
	screen, terminal := newScreen(stderr)
	if c.log, err = newLog(s, screen, terminal && colored(environ)); err != nil {
		printError(stderr, err)
		return exitUsage
	}
	for _, v := range unknownVariables(groups, environ) {
		c.log.Warn("unknown environment variable, ignored", "variable", v)
	}
	c.progress = newProgress(s, c.log, screen, terminal)
	release := context.AfterFunc(ctx, c.progress.interrupted)
	closeNow := func(err error) { c.close(exitInterrupted, err) }
	reportEnd.Store(&closeNow)
	err = c.embed(ctx)
	release()
	c.progress.close()
	err = withHint(err)
	code := exitCode(err, c.done(), len(c.total.Failed))
	if pageErr := writePage(c, code, err); pageErr != nil {
		err = errors.Join(err, pageErr)
		code = exitCode(err, c.done(), len(c.total.Failed))
	}
	saveReport(c, newReport(c, code, err)) // before the summary, whose reader may have ended: the write then ends the run
	c.printSummary()
	c.close(code, err)
	return code
}

// machine contains the parts of the program that tests replace: the functions that find and open GPUs and read their
// sensors, and the definition of --preset virnucpro, whose models are too large for tests.
type machine struct {
	findGPUs     func() cuda.Report
	openGPU      func(ordinal int, dtype kernels.DType) (kernels.Backend, error)
	watchSensors func(addresses []string, report func(pci string, s monitor.Sample)) (stop func())
	virNucPro    preset
}

var thisMachine = machine{
	virNucPro: virNucPro,
	findGPUs:  cuda.Devices,
	openGPU: func(ordinal int, dtype kernels.DType) (kernels.Backend, error) {
		return cuda.Open(ordinal, cuda.Options{DType: dtype})
	},
	watchSensors: monitor.WatchSensors,
}

// command is one run of embed.
type command struct {
	*settings
	stdout   io.Writer
	stderr   io.Writer
	log      *slog.Logger
	closing  sync.Once
	saving   sync.Once // of report.json
	progress *progress
	machine
	products  kernels.DType // type of the operands of matrix products, from --dtype
	ordinals  []int         // indices of the GPUs that --gpus names; nil for --gpus all or none
	expanded  []string      // arguments that are folders or globs, and led to inputs
	presetRun *presetRun    // nil without --preset
	models    []*model      // the open models
	total     pool.Summary  // summary of the DNA model and the protein model together
}

// embed checks flags, inputs, models and settings before it computes an embedding. Then it runs the DNA model on all
// DNA files, and after that the protein model on all protein files. With --dry-run it computes no embedding.
func (c *command) embed(ctx context.Context) error {
	if err := c.check(); err != nil {
		return err
	}
	reading := c.reading()
	inputs, absent, err := c.expand()
	if err == nil {
		err = c.checkPageIsNoInput(inputs)
	}
	if err != nil {
		return err
	}
	processors, err := c.openProcessors()
	if err != nil {
		return err
	}
	defer closeAll(processors)

	defer func() {
		for _, m := range c.models {
			m.checkpoint.Close()
		}
	}()
	if c.preset != nil {
		c.presetRun = &presetRun{command: c}
		reading = seqio.Options{} // of the FASTA files that the preset makes
		for _, a := range []seqio.Alphabet{seqio.DNA, seqio.Protein} {
			if _, err := c.modelFor(ctx, a, reading, processors); err != nil {
				return err
			}
		}
		if c.dryRun {
			listFailures(c, absent)
			return c.presetRun.survey(ctx, inputs)
		}
		derived, failed, release, err := c.presetRun.derive(ctx, inputs)
		if err != nil {
			return err
		}
		defer release()
		inputs, absent = derived, append(absent, failed...)
	}
	dna, protein, failed, err := classify(ctx, c, inputs, reading)
	if err != nil {
		return err
	}
	listFailures(c, slices.Concat(absent, failed))
	models, err := assign(ctx, c, dna, protein, func(a seqio.Alphabet) (*model, error) { return c.modelFor(ctx, a, reading, processors) })
	switch {
	case err != nil:
		return err
	case c.dryRun:
		return c.surveyAll(ctx, models)
	}
	return c.writeFailures(ctx, c.runModels(ctx, models, processors))
}

// classify calls pool.Plan, and gives different output names to inputs of one model. It logs the alphabet of each file.
func classify(ctx context.Context, c *command, inputs []seqio.Input, reading seqio.Options) (dna, protein []pool.File, failed []pool.Failure, err error) {
	if dna, protein, failed, err = pool.Plan(ctx, inputs, reading); err != nil {
		return nil, nil, nil, err
	}
	tellApart(dna, protein)
	all := slices.Concat(dna, protein)
	if err := checkNames(all, false); err != nil {
		return nil, nil, nil, err
	}
	if c.preset == nil {
		for _, f := range all {
			c.showAlphabet(f)
		}
	}
	return dna, protein, failed, nil
}

// listFailures logs failed inputs and adds them to the summary.
func listFailures(c *command, list []pool.Failure) {
	for _, f := range list {
		c.progress.FileFailed(f)
		f.Err = withHint(f.Err)
		c.total.Failed = append(c.total.Failed, f)
	}
}

// runModels claims the output folder, so that no run with other settings can write outputs of the same names meanwhile.
// Then it embeds the files of each model, one model after the other. With --preset it merges the outputs at the end.
func (c *command) runModels(ctx context.Context, models []*model, processors []*processor) error {
	if len(models) == 0 {
		return nil
	}
	jobs := jobsOf(models)
	release, err := pool.Claim(commandLine(), jobs...)
	if err != nil {
		return err
	}
	defer release()
	c.progress.plan(c.machine, models, processors)
	failed := len(c.total.Failed) // inputs that no job has
	for _, m := range models {
		if err := c.runModel(ctx, m); err != nil {
			return err
		}
	}
	if err := c.presetRun.mergeAll(ctx, models); err != nil || len(c.total.Failed) > failed {
		return err
	}
	pool.EndForce(jobs...)
	return nil
}

// modelFor returns the model for an alphabet. If the model is not open yet, modelFor opens it and gives it a job
// without files.
func (c *command) modelFor(ctx context.Context, a seqio.Alphabet, reading seqio.Options, processors []*processor) (*model, error) {
	if i := slices.IndexFunc(c.models, func(m *model) bool { return m.Alphabet == a }); i >= 0 {
		return c.models[i], nil
	}
	m, err := c.openOrPull(ctx, a)
	if err != nil {
		return nil, err
	}
	c.models = append(c.models, m)
	m.job, err = c.newJob(ctx, m, reading, processors)
	return m, err
}

// assign gives the files of each alphabet to the job of a model, which the function open returns. It returns the models
// that have files. It checks that no existing output was made with other settings, and that no two outputs have the
// same name.
func assign(ctx context.Context, c *command, dna, protein []pool.File, open func(seqio.Alphabet) (*model, error)) (models []*model, err error) {
	for _, files := range [][]pool.File{dna, protein} {
		if len(files) == 0 {
			continue
		}
		m, err := open(files[0].Alphabet)
		if err != nil {
			return nil, err
		}
		m.job.Files = files
		if err := c.divide(m.job, c.log); err != nil {
			return nil, err
		}
		if err := m.job.Check(ctx); err != nil {
			return nil, err
		}
		models = append(models, m)
	}
	if len(models) == 2 && models[0].checkpoint.Label == models[1].checkpoint.Label {
		return models, checkNames(slices.Concat(dna, protein), true)
	}
	return models, nil
}

// jobsOf returns the jobs of models.
func jobsOf(models []*model) (jobs []*pool.Job) {
	for _, m := range models {
		jobs = append(jobs, m.job)
	}
	return jobs
}

// runModel embeds all files of one model, and adds the summary to the total.
func (c *command) runModel(ctx context.Context, m *model) error {
	if m.checkpoint.Synthetic {
		c.log.Warn("the weights are synthetic: these embeddings carry no biology", "model", m.model)
	}
	if c.format == string(store.VirNucPro) {
		if err := c.virNucPro.check(m); err != nil {
			c.log.Warn("VirNucPro cannot use these embeddings", "reason", oneLine(err))
		}
	}
	if head := m.checkpoint.TunedHead(); len(head) > 0 {
		c.log.Info("a fine-tuned model: the tensors of its head are left out", "model", m.model, "tensors", strings.Join(head, ", "))
	}
	c.progress.begin(m.model, m.config, len(m.job.Files))
	summary, err := m.job.Run(ctx)
	c.progress.End()
	c.merge(summary)
	return err
}

// tellApart calls seqio.TellApart, which gives different output names to the inputs of one model where it can.
func tellApart(models ...[]pool.File) {
	for _, files := range models {
		inputs := make([]*seqio.Input, len(files))
		for i := range files {
			inputs[i] = &files[i].Input
		}
		seqio.TellApart(inputs)
	}
}

// checkNames returns an error if two outputs would have the same name. oneModel says that both models have the same
// label in file names, so that an output of DNA and an output of proteins may clash, too.
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

// writeFailures updates the list of failed files in the output folder, after a run that ended with err. It returns err,
// joined with the reason if the list cannot be written. The reason is left out if the run has already reported that the
// folder cannot be written. If no file is complete or failed, the list does not change.
func (c *command) writeFailures(ctx context.Context, err error) error {
	if errors.Is(err, pool.ErrFolderGone) {
		c.total = pool.Summary{} // the folder, or outputs in it, are gone, so that no list is written
	}
	if c.done()+len(c.total.Failed) == 0 {
		return err
	}
	unwritable := func(f pool.Failure) bool { return f.Type == pool.OutputFailure }
	reported := errors.Is(err, pool.ErrOutput) || slices.ContainsFunc(c.total.Failed, unwritable)
	listErr := pool.WriteFailures(ctx, c.out, append(c.total.Done(), c.expanded...), c.total.Failed)
	if !reported {
		return errors.Join(err, listErr)
	}
	return err
}

// newJob returns a job of one model, without files. It reads all files of the checkpoint to compute their digest, and
// returns pool.ErrInterrupted if ctx ends meanwhile.
func (c *command) newJob(ctx context.Context, m *model, reading seqio.Options, processors []*processor) (*pool.Job, error) {
	sum, err := m.checkpoint.SHA256(ctx)
	switch {
	case ctx.Err() != nil:
		return nil, pool.ErrInterrupted
	case err != nil:
		return nil, fmt.Errorf("--%s %s: %w", m.flag("model"), m.model, fetchAgain(m.model, err))
	}
	job := &pool.Job{Reading: reading, Tokenizer: m.tokenizer, Long: pool.LongPolicy(c.long), MaxLength: m.maxLength(c.settings),
		Overlap: c.overlap, Windows: c.windows, Covered: m.covered, KeptBytes: pool.DefaultKeptBytes,
		PartRecords: c.partRecords, Force: c.force, Observer: c.progress}
	if processors[0].isGPU { // all processors are of the same kind
		job.StallTimeout = c.stallTimeout
	}
	for _, p := range processors {
		job.Devices = append(job.Devices, p.device(m, c.progress))
	}
	label, kind := m.checkpoint.Label, store.Nucleotide
	if c.format == string(store.VirNucPro) {
		label = m.VirNucPro
	}
	if m.Alphabet == seqio.Protein {
		kind = store.Protein
	}
	dtype := processors[0].dtype
	parameters := map[string]string{
		"pool": c.poolingList(), "layers": m.layerList(), "format": c.formatParameter(), "dtype_out": c.dtypeOut,
		"long": c.longParameter(), "max_length": strconv.Itoa(job.MaxLength), "min_length": strconv.Itoa(c.minLength),
		"gaps": c.gaps, "on_bad_record": c.onBad, "duplicates": c.duplicates, "keep_case": strconv.FormatBool(c.keepCase),
	}
	if c.preset != nil {
		maps.Copy(parameters, c.presetRun.parameters())
	}
	job.Output = pool.Output{
		Dir: c.out, Label: label, Format: store.Format(c.format), Kind: kind,
		Dim: m.config.Hidden, Columns: m.storedColumns(), DType: store.DType(c.dtypeOut), Windows: c.windows,
		Compress: c.compress, Matrix: c.h5Matrix,
		Meta: map[string]string{"model": m.model, "revision": m.checkpoint.Revision, "pooling": c.poolingList(), "dtype": dtype,
			"layers": m.layerList(), "seqembed_version": release},
		Template: store.Entry{Model: m.model, Revision: m.checkpoint.Revision, CheckpointSHA256: sum,
			TokenizerSHA256: m.tokenizer.SHA256(), Parameters: parameters, DType: dtype,
			Backend: processors[0].backend, ProgramVersion: version(), NumericsVersion: numerics, LibraryVersions: map[string]string{"go": runtime.Version()}},
	}
	return job, nil
}

// longParameter returns the values of --long, --overlap and --windows as one text for the manifest.
func (c *command) longParameter() string {
	text := c.long
	if c.overlap > 0 {
		text += fmt.Sprintf(", overlap %d", c.overlap)
	}
	if c.windows {
		text += ", one row a window"
	}
	return text
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
	t.Repeated += s.Repeated
	t.Skipped += s.Skipped
}

// done returns the number of inputs whose outputs are complete.
func (c *command) done() int { return len(c.total.Files) + len(c.total.Resumed) }

// check checks and parses the flags that can be checked before a model is open. It begins with --preset and the flags
// of fair-esm's extract.py, because these set other flags.
func (c *command) check() error {
	if err := c.applyExtractFlags(); err != nil {
		return err
	}
	if err := c.usePreset(c.virNucPro); err != nil {
		return err
	}
	if err := c.parseShard(); err != nil {
		return err
	}
	if err := checkChoices(c.choices()); err != nil {
		return err
	}
	if err := c.parsePoolings(); err != nil {
		return err
	}
	if err := c.checkFormat(); err != nil {
		return err
	}
	type number struct {
		name       string
		value, max int
	}
	if c.stallTimeout < 0 {
		return usagef("--stall-timeout: %v is negative", c.stallTimeout)
	}
	numbers := []number{{"part-records", c.partRecords, math.MaxInt}, {"max-length", c.maxLength, math.MaxInt}, {"overlap", c.overlap, math.MaxInt}, {"min-length", c.minLength, math.MaxInt},
		{"threads", c.threads, maxThreads}}
	for _, f := range c.families {
		numbers = append(numbers, number{f.flag("batch-size"), f.batch, maxBudget})
	}
	for _, f := range numbers {
		switch {
		case f.value < 0:
			return usagef("--%s: %d is negative", f.name, f.value)
		case f.value > f.max:
			return usagef("--%s: %d is more than %d", f.name, f.value, f.max)
		}
	}
	if err := c.checkPage(); err != nil {
		return err
	}
	if c.long != string(pool.LongWindow) && (c.windows || c.overlap > 0) {
		return usagef("--windows and --overlap are about windows: they need --long window")
	}
	if c.out == "" {
		return usagef("--out: the name of the folder is empty")
	}
	var err error
	if c.products, err = kernels.ParseDType(c.dtype); err != nil {
		return usagef("--dtype: %w", err)
	}
	c.ordinals, err = parseGPUs(c.gpus)
	return err
}

// expand returns the inputs named by the plain arguments, by --dna and by --protein, and a failure for each argument
// that leads to no input.
func (c *command) expand() (inputs []seqio.Input, failed []pool.Failure, err error) {
	for _, part := range []struct {
		args     []string
		alphabet seqio.Alphabet
	}{{c.inputs, seqio.Unknown}, {c.dna, seqio.DNA}, {c.protein, seqio.Protein}} {
		for _, arg := range part.args {
			expanded, leftOut, err := seqio.Expand(arg, part.alphabet)
			for _, l := range leftOut {
				c.log.Warn("files without an extension of FASTA or FASTQ, pipes and devices are left out", "folder", l.Folder, "left_out", l.String())
			}
			if errors.Is(err, seqio.ErrNoInput) {
				if hint := didYouMean(arg, "embed ", subcommandNames()); hint != "" && part.alphabet == seqio.Unknown && len(inputs)+len(failed) == 0 {
					return nil, nil, usagef("%w%s", err, hint)
				}
				failed = append(failed, pool.NewFailure(arg, err))
				continue
			}
			if err != nil {
				return nil, nil, err
			}
			if len(expanded) > 0 && expanded[0].Path != arg {
				c.expanded = append(c.expanded, arg)
			}
			inputs = append(inputs, expanded...)
		}
	}
	if len(inputs)+len(failed) == 0 {
		return nil, nil, usagef("no input is given")
	}
	return inputs, failed, seqio.CheckPaths(inputs)
}
