package main

import (
	"context"
	_ "embed"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"seqembed/kernels"
	"seqembed/pool"
	"seqembed/transformer"
)

const verifyUsage = `embed verify compares the weights of a model with embeddings that others have computed with the published
checkpoint and published, on each device that could compute, in each precision.

Usage:
  embed verify [flags] MODEL

MODEL is what --dnabert-model and --esm-model take. For each record it prints the relative L2 error and the
cosine, then a verdict.

Exit codes: 0 all records agree within the stated tolerance, 1 nothing could be compared, 2 some do not agree, or a
precision that was asked for could not be computed.

Flags:
      --dtype TYPES      fp32, bf16 or fp16, or several (default fp32,bf16 and on a GPU fp16)
      --gpus GPUS        as for embed
      --threads N        as for embed
      --tokenizer FILE   vocabulary to use instead of the checkpoint's
      --offline          never download the model
  -h, --help             this page
`

//go:embed published/published.json
var publishedJSON []byte

// publishedSet is a set of embeddings by one model, from one source.
type publishedSet struct {
	Model            string `json:"model"` // short name
	Source           string `json:"source"`
	Precision        string `json:"precision"`         // of the computation: float32 or bfloat16
	CheckpointSHA256 string `json:"checkpoint_sha256"` // as weights.Checkpoint.SHA256 returns it; "" if not known
	Records          []struct {
		ID       string       `json:"id"`
		Sequence string       `json:"sequence"`
		Mean     base64Floats `json:"mean"`
	} `json:"records"`
}

// base64Floats is a vector in JSON: little-endian float32 values in base64.
type base64Floats []float32

// UnmarshalText decodes the base64.
func (f *base64Floats) UnmarshalText(text []byte) error {
	content, err := base64.StdEncoding.DecodeString(string(text))
	if err != nil || len(content)%4 != 0 {
		return errors.Join(err, fmt.Errorf("%d bytes are no float32 values", len(content)))
	}
	for b := range slices.Chunk(content, 4) {
		*f = append(*f, math.Float32frombits(binary.LittleEndian.Uint32(b)))
	}
	return nil
}

// ownTolerance has the tolerances of the relative L2 error of this program's embeddings, by type. publishedTolerance
// has those of published embeddings. An embedding of this program may differ from a published one by the sum of both
// tolerances. ownTolerance has, for each type, the largest bound that docs/numerics.md gives for pooled embeddings of a
// synthetic model, rounded up. Computation in fp32 with bf16 weights has the bound of bf16. Synthetic models amplify
// rounding more than trained models. publishedTolerance of float32 allows for another order of summation and for
// kernels of other devices.
var (
	ownTolerance       = map[string]float64{"fp32": 1e-5, "fp16": 1.2e-2, "bf16": 5.6e-2, "fp32, bf16 weights": 5.6e-2}
	publishedTolerance = map[string]float64{"float32": 1e-4, "bfloat16": 5.6e-2}
)

// verify is the command "embed verify".
func verify(ctx context.Context, m machine, args, environ []string, stdout, stderr io.Writer) (code int, err error) {
	var sets []publishedSet
	if err := json.Unmarshal(publishedJSON, &sets); err != nil {
		return exitNothing, err
	}
	return verifyWith(ctx, m, sets, args, environ, stdout, stderr)
}

// verifyWith is the command "embed verify" with the given published embeddings. Tests give their own.
func verifyWith(ctx context.Context, m machine, sets []publishedSet, args, environ []string, stdout, stderr io.Writer) (code int, err error) {
	s := &settings{logFormat: "text", quiet: true}
	flags := pflag.NewFlagSet("embed verify", pflag.ContinueOnError)
	dtypes := flags.StringSlice("dtype", nil, "")
	flags.StringVar(&s.gpus, "gpus", "all", "")
	flags.IntVar(&s.threads, "threads", 0, "")
	flags.BoolVar(&s.offline, "offline", false, "")
	vocabulary := flags.String("tokenizer", "", "")
	rest, helped, err := parseSubcommand(flags, verifyUsage, 1, args, environ, stdout)
	if err != nil || helped {
		return exitCode(err, 0, 0), err
	}
	if len(rest) != 1 {
		return exitUsage, usagef("embed verify takes one model")
	}
	c := &command{settings: s, stdout: stdout, machine: m}
	if c.ordinals, err = parseGPUs(s.gpus); err == nil && (s.threads < 0 || s.threads > maxThreads) {
		err = usagef("--threads: %d is not in 0 to %d", s.threads, maxThreads)
	}
	screen, terminal := newScreen(stderr)
	if err == nil {
		c.log, err = newLog(s, screen, terminal && colored(environ))
	}
	if err != nil {
		return exitUsage, err
	}
	c.progress = newProgress(s, c.log, screen, terminal)
	v := &verification{command: c}
	if err := v.open(ctx, rest[0], *vocabulary, sets); err != nil {
		return exitCode(err, 0, 0), err
	}
	defer v.model.checkpoint.Close()
	missing := v.run(ctx, *dtypes)
	if missing != nil && (v.compared == 0 || errors.Is(missing, pool.ErrInterrupted)) {
		return exitCode(missing, 0, 0), missing
	}
	if code, err = v.verdict(ctx); err == nil && missing != nil {
		return exitSome, missing
	}
	return code, err
}

// verification compares one model with published embeddings.
type verification struct {
	*command
	model *model
	name  string // short name of the published model
	sets  []publishedSet

	compared, far int     // number of comparisons, and of those out of tolerance
	worst         float64 // largest relative L2 error
	leastCosine   float64
}

// open opens the model and chooses the published embeddings to compare with: those of the model of the same name or, if
// the name is not known, of models of the same shape.
func (v *verification) open(ctx context.Context, name, vocabulary string, sets []publishedSet) error {
	var known []string
	for _, set := range sets {
		if !slices.Contains(known, set.Model) {
			known = append(known, set.Model)
		}
	}
	unknown := fmt.Errorf("no published embeddings of %s are known; there are some of %s", name, strings.Join(known, ", "))
	if _, published := transformer.Families.Config(name); published && !slices.Contains(known, name) {
		return unknown // before the model is downloaded
	}
	c, err := openAny(ctx, v.command, name)
	if err != nil {
		return err
	}
	for _, set := range sets {
		config, _ := transformer.Families.Config(set.Model)
		sameShape := config.Family == c.Config.Family && config.Layers == c.Config.Layers && config.Hidden == c.Config.Hidden
		if c.Label == set.Model || sameShape && !slices.Contains(c.Config.Family.ModelNames(), c.Label) {
			v.name, v.sets = set.Model, append(v.sets, set)
		}
	}
	if len(v.sets) == 0 {
		return errors.Join(unknown, c.Close())
	}
	tokenizer, err := c.Tokenizer(vocabulary)
	if err != nil {
		return errors.Join(err, c.Close())
	}
	v.model = &model{familyFlags: &familyFlags{Family: c.Config.Family, model: name}, checkpoint: c, config: c.Config, tokenizer: tokenizer,
		columns: transformer.Columns([]int{c.Config.Layers}, transformer.Mean)}
	return nil
}

// run compares the embeddings of the model with the published ones, in each precision on each device, and prints a
// table. If a device fails in one precision, run continues with the next device or precision.
func (v *verification) run(ctx context.Context, dtypes []string) error {
	asked := []kernels.DType{kernels.FP32, kernels.BF16, kernels.FP16}
	if slices.Equal(dtypes, []string{kernels.Auto.String()}) { // from EMBED_DTYPE, which a run understands, too
		dtypes = nil
	}
	if len(dtypes) > 0 {
		asked = nil
	}
	for _, name := range dtypes {
		d, err := kernels.ParseDType(name)
		if err != nil || d == kernels.Auto {
			return usagef("--dtype: %q is none of fp32, bf16, fp16", name)
		}
		asked = append(asked, d)
	}
	v.leastCosine = 1
	fmt.Fprintf(v.stdout, "%s, compared with published embeddings of %s\n", v.model.model, v.name)
	for _, set := range v.sets {
		fmt.Fprintf(v.stdout, "  %d records in %s: %s\n", len(set.Records), set.Precision, set.Source)
	}
	table := tabwriter.NewWriter(v.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\nRECORD\tPUBLISHED IN\tDEVICE\tDTYPE\tREL. L2\tTOLERANCE\tCOSINE\t")
	var errs []error
	for _, d := range asked {
		processors, err := v.processors(d)
		if err != nil && len(dtypes) == 0 && d == kernels.FP16 {
			continue // the CPU does not compute in fp16, and --dtype does not ask for it
		}
		errs = append(errs, err)
		for _, p := range processors {
			if err := v.onProcessor(ctx, p, table); err != nil {
				errs = append(errs, err)
			}
			if ctx.Err() != nil {
				break
			}
		}
		closeAll(processors)
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(append(errs, table.Flush())...)
}

// processors opens the devices for matrix products of one type.
func (v *verification) processors(d kernels.DType) ([]*processor, error) {
	v.products = d
	return v.openProcessors()
}

// onProcessor compares the embeddings that one device computes with the published ones, and writes a line of the table
// for each record.
func (v *verification) onProcessor(ctx context.Context, p *processor, table io.Writer) error {
	e, err := p.device(v.model, v.progress).Open()
	if err != nil {
		return &pool.DeviceError{Device: p.name, Err: err}
	}
	defer e.Close()
	for _, set := range v.sets {
		for _, r := range set.Records {
			if ctx.Err() != nil {
				return pool.ErrInterrupted
			}
			var batch kernels.Batch
			ids, _ := v.model.tokenizer.Append(nil, []byte(r.Sequence))
			batch.Append(ids)
			result, err := e.Start(batch)()
			if err != nil {
				return &pool.DeviceError{Device: p.name, Err: err}
			}
			if len(result[0]) != len(r.Mean) {
				return fmt.Errorf("the model has %d columns, and the published embeddings %d", len(result[0]), len(r.Mean))
			}
			l2, cosine := distances(result[0], r.Mean)
			tolerance := ownTolerance[p.dtype] + publishedTolerance[set.Precision]
			remark := ""
			v.compared++
			if !(l2 <= tolerance) {
				v.far++
				remark = "FAR"
			}
			v.worst, v.leastCosine = max(v.worst, l2), min(v.leastCosine, cosine)
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%.2e\t%.2e\t%.7f\t%s\n", plain(r.ID), set.Precision, p.name, p.dtype, l2, tolerance, cosine, remark)
		}
	}
	return nil
}

// distances returns the relative L2 error of got against want, |got−want|/|want|, and the cosine of their angle.
func distances(got, want []float32) (l2, cosine float64) {
	var difference, gg, ww, gw float64
	for i := range want {
		g, w := float64(got[i]), float64(want[i])
		difference += (g - w) * (g - w)
		gg, ww, gw = gg+g*g, ww+w*w, gw+g*w
	}
	return math.Sqrt(difference / ww), gw / math.Sqrt(gg*ww)
}

// nearby is the least cosine at which embeddings that are out of tolerance are still called similar. Embeddings by
// unrelated weights have lower cosines.
const nearby = 0.99

// verdict prints the conclusion and returns the exit code.
func (v *verification) verdict(ctx context.Context) (code int, err error) {
	digest := "the SHA-256 of the published checkpoint is not known"
	sum, err := v.model.checkpoint.SHA256(ctx)
	if err != nil {
		return exitNothing, err
	}
	for _, set := range v.sets {
		switch set.CheckpointSHA256 {
		case "":
			continue
		case sum:
			digest = "its SHA-256 is that of the published checkpoint"
		default:
			digest = "its SHA-256 is not that of the published checkpoint, as in a file of another format"
		}
	}
	code, text := exitDone, fmt.Sprintf("VERIFIED: these are the published weights of %s: all %d comparisons agree", v.name, v.compared)
	switch {
	case v.far > 0 && v.leastCosine >= nearby:
		code, text = exitSome, fmt.Sprintf("NOT VERIFIED: these weights give embeddings similar to those of %s, but %d of %d comparisons are out of tolerance",
			v.name, v.far, v.compared)
	case v.far > 0:
		code, text = exitSome, fmt.Sprintf("NOT VERIFIED: these are not the published weights of %s: %d of %d comparisons disagree", v.name, v.far, v.compared)
	}
	if v.model.checkpoint.Synthetic {
		text += "; the weights are synthetic"
	}
	_, err = fmt.Fprintf(v.stdout, "\n%s (worst relative L2 %.2e, least cosine %.7f; %s)\n", text, v.worst, v.leastCosine, digest)
	if err != nil {
		return exitNothing, err
	}
	return code, nil
}
