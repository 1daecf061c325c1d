package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
)

// markdown writes the tables.
func (r report) markdown(out io.Writer) {
	fmt.Fprintf(out, "# embed on a GPU, %s: %s\n\n", r.Date, r.GPU)
	fmt.Fprintf(out, "embed: %s. Peers: PyTorch %s.\n\n", cmp.Or(r.Backend, "not measured"), cmp.Or(r.Torch, "not measured"))
	fmt.Fprintf(out, "Ceiling: %s TFLOP/s, the fastest bf16 product of large square matrices through torch.matmul.\n\n", number(r.Ceiling))
	fmt.Fprintln(out, "Forward passes in bf16, from token ids to mean embeddings, tokens/s of real tokens, medians. The best peer is the faster of")
	fmt.Fprintln(out, "eager PyTorch and torch.compile, over batches sorted by length; the baseline pads batches of 2,048 tokens in the order of the records.")
	fmt.Fprintln(out)
	fmt.Fprintln(out, "| | embed | eager | compile | embed / best peer | / eager | / baseline bf16 | / baseline fp32 | TFLOP/s | of the ceiling |")
	fmt.Fprintln(out, "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
	for _, m := range r.Models {
		fmt.Fprintf(out, "| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", m.Model, rate(m.Ours), rate(m.Eager), rate(m.Compiled),
			times(m.OverBest), times(m.OverEager), times(m.OverBaselineBF16), times(m.OverBaselineFP32), number(m.TFLOPS), percent(m.CeilingShare))
	}

	fmt.Fprintln(out, "\n## Every measurement")
	fmt.Fprintln(out)
	fmt.Fprintln(out, "| model | runner | type | batch | records | tokens | padding | tokens/s | passes, s: median, least, most |")
	fmt.Fprintln(out, "| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
	for _, m := range r.Models {
		for _, l := range r.Lines {
			if l.Model != m.Model || !l.timed() {
				continue
			}
			padding := 0.0
			if l.Padded > 0 {
				padding = float64(l.Padded-l.Tokens) / float64(l.Padded)
			}
			fmt.Fprintf(out, "| %s | %s | %s | %d | %d | %d | %.1f%% | %s | %d: %.4g, %.4g, %.4g |\n", l.Model, cell(l.runner()), l.DType, l.Budget,
				l.Records, l.Tokens, 100*padding, rate(&l), len(l.Seconds), l.Median, l.Min, l.Max)
		}
	}

	for _, m := range r.Models {
		if m.Ours != nil && len(m.Ours.Profile) > 0 {
			r.profile(out, *m.Ours)
		}
	}
	if len(r.Problems) > 0 {
		fmt.Fprintln(out, "\n## Problems")
		fmt.Fprintln(out)
		for _, p := range r.Problems {
			fmt.Fprintf(out, "- %s\n", cell(p))
		}
	}
}

// profile writes where the time of a pass goes. Measuring it costs some time,
// so the sum is longer than a pass.
func (r report) profile(out io.Writer, l line) {
	fmt.Fprintf(out, "\n## %s by operation, %s, batches of %d tokens\n\n", l.Model, l.DType, l.Budget)
	fmt.Fprintln(out, "| operation | calls | ms | time | TFLOP/s | of the ceiling |")
	fmt.Fprintln(out, "| --- | --- | --- | --- | --- | --- |")
	rest := l.ProfileSeconds
	for _, o := range l.Profile {
		rest -= o.Seconds
		tflops, share := 0.0, 0.0
		if o.FLOPs > 0 && o.Seconds > 0 {
			tflops = o.FLOPs / o.Seconds / 1e12
			if r.Ceiling > 0 {
				share = tflops / r.Ceiling
			}
		}
		fmt.Fprintf(out, "| %s | %d | %.2f | %s | %s | %s |\n", cell(o.Op), o.Calls, 1e3*o.Seconds, percent(o.Seconds/l.ProfileSeconds), number(tflops), percent(share))
	}
	fmt.Fprintf(out, "| between operations | | %.2f | %s | | |\n", 1e3*rest, percent(rest/l.ProfileSeconds))
}

// runner says what ran.
func (l line) runner() string {
	if l.Kind == "forward" {
		return "embed"
	}
	parts := []string{l.How, l.Attention, l.Mode}
	if l.Compiled != "" {
		parts = append(parts, l.Compiled)
	}
	return strings.Join(parts, ", ")
}

// cell keeps a text on one line and in one column.
func cell(s string) string {
	return strings.NewReplacer("|", "\\|", "\n", " ").Replace(s)
}

func rate(l *line) string {
	if l == nil {
		return "-"
	}
	return fmt.Sprintf("%.0f", l.Rate)
}

func times(x float64) string {
	if x == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", x)
}

func number(x float64) string {
	if x == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f", x)
}

func percent(share float64) string {
	if share == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f%%", 100*share)
}
