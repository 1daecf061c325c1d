package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// line is a line of JSON of BenchmarkForward (kind forward) or of peers.py
// (kinds peer and ceiling). Seconds and FLOPs are of one pass.
type line struct {
	Kind    string    `json:"kind"`
	Model   string    `json:"model,omitempty"`
	Source  string    `json:"source,omitempty"`
	Records int       `json:"records,omitempty"`
	Digest  string    `json:"digest,omitempty"` // of the records
	Tokens  int       `json:"tokens,omitempty"`
	FLOPs   float64   `json:"flops,omitempty"`
	Device  string    `json:"device,omitempty"`
	DType   string    `json:"dtype,omitempty"`
	Budget  int       `json:"budget,omitempty"`
	Padded  int       `json:"padded,omitempty"` // tokens with the padding
	Seconds []float64 `json:"seconds,omitempty"`
	Median  float64   `json:"median,omitempty"`
	Min     float64   `json:"min,omitempty"`
	Max     float64   `json:"max,omitempty"`
	Rate    float64   `json:"tokens_per_second,omitempty"`

	ProfileSeconds float64 `json:"profile_seconds,omitempty"`
	Profile        []op    `json:"profile,omitempty"`

	Mode      string   `json:"mode,omitempty"` // check, eager, baseline or compile
	How       string   `json:"how,omitempty"`
	Attention string   `json:"attention,omitempty"`
	Instead   string   `json:"instead_of_transformers,omitempty"` // why
	Compiled  string   `json:"compiled,omitempty"`
	Order     string   `json:"order,omitempty"`
	Torch     string   `json:"torch,omitempty"`
	Error     string   `json:"error,omitempty"`
	Distance  *float64 `json:"relative_l2,omitempty"` // of a check
	Bar       float64  `json:"bar,omitempty"`

	Size   int     `json:"size,omitempty"` // of a ceiling's matrices
	TFLOPS float64 `json:"tflops,omitempty"`
}

// op is an entry of a profile.
type op struct {
	Op      string  `json:"op"`
	Calls   int     `json:"calls"`
	Seconds float64 `json:"seconds"`
	FLOPs   float64 `json:"flops"`
}

// report is what the JSON file holds.
type report struct {
	Date     string        `json:"date"`
	GPU      string        `json:"gpu"`
	Backend  string        `json:"backend"`        // ours, as it names itself
	Torch    string        `json:"torch"`          // the peers'
	Ceiling  float64       `json:"ceiling_tflops"` // bf16, the best of all sizes; 0: not measured
	Models   []modelReport `json:"models"`
	Problems []string      `json:"problems"`
	Lines    []line        `json:"lines"` // everything that was read
}

// modelReport compares one model's fastest bf16 run with its peers, over the
// same records.
type modelReport struct {
	Model        string  `json:"model"`
	Ours         *line   `json:"ours"`
	Eager        *line   `json:"eager"`
	Compiled     *line   `json:"compile"`
	BaselineBF16 *line   `json:"baseline_bf16"`
	BaselineFP32 *line   `json:"baseline_fp32"`
	TFLOPS       float64 `json:"tflops"`
	CeilingShare float64 `json:"ceiling_share"` // of 1
	// Our tokens/s over the peers'; 0 where one is missing.
	OverBest         float64 `json:"over_best_peer"`
	OverEager        float64 `json:"over_eager"`
	OverBaselineBF16 float64 `json:"over_baseline_bf16"`
	OverBaselineFP32 float64 `json:"over_baseline_fp32"`
}

// best is the faster peer, or nil.
func (m modelReport) best() *line {
	if m.Eager == nil || (m.Compiled != nil && m.Compiled.Rate > m.Eager.Rate) {
		return m.Compiled
	}
	return m.Eager
}

func readLines(r io.Reader) (lines []line, err error) {
	for in := json.NewDecoder(r); ; {
		var l line
		if err := in.Decode(&l); errors.Is(err, io.EOF) {
			return lines, nil
		} else if err != nil {
			return nil, fmt.Errorf("entry %d: %w", len(lines)+1, err)
		}
		switch {
		case l.Kind != "forward" && l.Kind != "peer" && l.Kind != "ceiling":
			return nil, fmt.Errorf("entry %d: its kind is %q", len(lines)+1, l.Kind)
		case l.Kind != "ceiling" && l.Model == "":
			return nil, fmt.Errorf("entry %d: it names no model", len(lines)+1)
		case l.timed() && !(l.Rate > 0 && l.Median > 0):
			return nil, fmt.Errorf("entry %d: it has no time", len(lines)+1)
		}
		lines = append(lines, l)
	}
}

// timed says whether the line is a measurement of passes.
func (l line) timed() bool {
	return l.Kind == "forward" || (l.Kind == "peer" && l.Error == "" && l.Mode != "check")
}

// expected are the models that a full run measures, in the order of the table.
var expected = []string{"dnabert-s", "esm2-8m", "esm2-35m", "esm2-150m", "esm2-650m", "esm2-3b"}

// join compares. Where a measurement was repeated, the fastest counts.
func join(date string, lines []line) (report, error) {
	r := report{Date: date, Problems: []string{}, Lines: lines}
	problem := func(format string, args ...any) { r.Problems = append(r.Problems, fmt.Sprintf(format, args...)) }
	for _, l := range lines {
		switch l.Kind {
		case "ceiling":
			r.Ceiling = max(r.Ceiling, l.TFLOPS)
			r.GPU, r.Torch = l.Device, l.Torch
		case "peer":
			r.GPU, r.Torch = l.Device, l.Torch
		}
	}
	for _, l := range lines {
		switch l.Kind {
		case "forward":
			name := strings.TrimPrefix(strings.SplitN(l.Device, ",", 2)[0], "cuda ")
			r.GPU = cmp.Or(r.GPU, name)
			if r.Backend = l.Device; name != r.GPU {
				problem("%s ran on %s, another measurement on %s", l.Model, name, r.GPU)
			}
		case "peer", "ceiling":
			if l.Device != r.GPU {
				problem("%s ran on %s, another measurement on %s", cmp.Or(l.Model, l.Kind), l.Device, r.GPU)
			}
		}
	}
	if r.GPU == "" {
		return r, errors.New("there is no measurement in the input")
	}
	if r.Ceiling == 0 {
		problem("the ceiling was not measured")
	}
	names := slices.Clone(expected)
	for _, l := range lines {
		if l.Model != "" && !slices.Contains(names, l.Model) {
			names = append(names, l.Model)
		}
	}
	for _, name := range names {
		m := modelReport{Model: name}
		for _, l := range lines {
			if l.Model == name && l.Kind == "forward" && l.DType == "bf16" {
				m.Ours = faster(m.Ours, l)
			}
		}
		for _, l := range lines {
			if l.Model != name || l.Kind != "peer" {
				continue
			}
			switch {
			case l.Error != "":
				problem("%s, %s: %s", name, l.Mode, l.Error)
			case m.Ours != nil && l.Digest != m.Ours.Digest:
				problem("%s, %s: it ran over other records than ours and is left out", name, l.Mode)
			case l.Mode == "check":
				if l.Distance == nil || !(*l.Distance <= l.Bar) {
					problem("%s: the peer computes something else: %v from the reference, the bar is %g", name, deref(l.Distance), l.Bar)
				}
			case l.Mode == "eager":
				m.Eager = faster(m.Eager, l)
			case l.Mode == "compile":
				m.Compiled = faster(m.Compiled, l)
			case l.Mode == "baseline" && l.DType == "bf16":
				m.BaselineBF16 = faster(m.BaselineBF16, l)
			case l.Mode == "baseline" && l.DType == "fp32":
				m.BaselineFP32 = faster(m.BaselineFP32, l)
			default:
				problem("%s: a peer of mode %q, %s", name, l.Mode, l.DType)
			}
		}
		measured := []struct {
			what string
			line *line
		}{
			{"our forward pass in bf16", m.Ours}, {"eager PyTorch", m.Eager}, {"torch.compile", m.Compiled},
			{"the baseline in bf16", m.BaselineBF16}, {"the baseline in fp32", m.BaselineFP32},
		}
		if !slices.ContainsFunc(lines, func(l line) bool { return l.Model == name }) {
			problem("%s: nothing was measured", name)
			measured = nil
		}
		for _, p := range measured {
			if p.line == nil {
				problem("%s: %s was not measured", name, p.what)
			}
		}
		if m.Ours != nil {
			m.TFLOPS = m.Ours.FLOPs / m.Ours.Median / 1e12
			if r.Ceiling > 0 {
				m.CeilingShare = m.TFLOPS / r.Ceiling
			}
		}
		m.OverBest, m.OverEager = ratio(m.Ours, m.best()), ratio(m.Ours, m.Eager)
		m.OverBaselineBF16, m.OverBaselineFP32 = ratio(m.Ours, m.BaselineBF16), ratio(m.Ours, m.BaselineFP32)
		r.Models = append(r.Models, m)
	}
	return r, nil
}

func faster(best *line, l line) *line {
	if best == nil || l.Rate > best.Rate {
		return &l
	}
	return best
}

// ratio is the quotient of the tokens/s, 0 where one is missing.
func ratio(ours, peer *line) float64 {
	if ours == nil || peer == nil {
		return 0
	}
	return ours.Rate / peer.Rate
}

func deref(x *float64) any {
	if x == nil {
		return "unknown"
	}
	return *x
}
