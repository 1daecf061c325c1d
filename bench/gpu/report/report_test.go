package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const gpu = "NVIDIA H100 80GB HBM3"

// forward, peer and ceiling are lines as the two programs write them.
func forward(model, dtype string, budget int, rate float64) string {
	return fmt.Sprintf(`{"kind":"forward","model":%q,"source":"uniprot_500","records":2,"digest":"d","tokens":1000,"flops":4e12,"device":"cuda %s, sm_90, driver CUDA 13.0, cuBLASLt 13.1, %s",
		"dtype":%q,"budget":%d,"seconds":[%g],"median":%g,"min":1,"max":2,"tokens_per_second":%g,"profile_seconds":0.02,
		"profile":[{"op":"linear 8x8","calls":3,"seconds":0.01,"flops":4e12},{"op":"norm","calls":1,"seconds":0.004,"flops":0}]}`+"\n", model, gpu, dtype, dtype, budget, 1000/rate, 1000/rate, rate)
}

func peer(model, mode, dtype string, rate float64) string {
	return fmt.Sprintf(`{"kind":"peer","model":%q,"digest":"d","device":%q,"torch":"2.9","how":"EsmModel","attention":"sdpa","mode":%q,"dtype":%q,"budget":16384,"padded":1250,
		"records":2,"tokens":1000,"seconds":[%g],"median":%g,"tokens_per_second":%g,"tried":[{"budget":16384,"seconds":1}]}`+"\n", model, gpu, mode, dtype, 1000/rate, 1000/rate, rate)
}

func ceiling(size int, tflops float64) string {
	return fmt.Sprintf(`{"kind":"ceiling","device":%q,"torch":"2.9","dtype":"bf16","size":%d,"seconds":[1],"tflops":%g}`+"\n", gpu, size, tflops)
}

// complete is a run with nothing missing.
func complete() (text string) {
	text = ceiling(4096, 600) + ceiling(8192, 800) + ceiling(16384, 700)
	for _, m := range expected {
		text += forward(m, "bf16", 16384, 80_000) + forward(m, "bf16", 65536, 100_000) + forward(m, "fp32", 16384, 900_000)
		text += fmt.Sprintf(`{"kind":"peer","model":%q,"digest":"d","device":%q,"mode":"check","dtype":"fp32","relative_l2":1e-6,"bar":2e-5}`, m, gpu)
		text += peer(m, "eager", "bf16", 20_000) + peer(m, "compile", "bf16", 40_000) + peer(m, "baseline", "bf16", 5_000) + peer(m, "baseline", "fp32", 2_000)
	}
	return text
}

func TestReport(t *testing.T) {
	dir := t.TempDir()
	input := filepath.Join(dir, "in.jsonl")
	if err := os.WriteFile(input, []byte(complete()), 0o666); err != nil {
		t.Fatal(err)
	}
	var page bytes.Buffer
	problems, err := run(&page, filepath.Join(dir, "results"), "2026-11-23", []string{input})
	if err != nil || problems {
		t.Fatalf("problems %t, %v\n%s", problems, err, &page)
	}
	base := filepath.Join(dir, "results", "2026-11-23-nvidia-h100-80gb-hbm3")
	stored, err := os.ReadFile(base + ".md")
	if err != nil || !bytes.Equal(stored, page.Bytes()) {
		t.Errorf("the page in the file is not the one that was printed: %v", err)
	}
	for _, want := range []string{
		"| esm2-650m | 100000 | 20000 | 40000 | 2.50 | 5.00 | 20.00 | 50.00 | 400.0 | 50.0% |",
		"| esm2-3b | EsmModel, sdpa, eager | bf16 | 16384 | 2 | 1000 | 20.0% | 20000 |",
		"| esm2-8m | embed | fp32 | 16384 | 2 | 1000 | 0.0% | 900000 |",
		"## dnabert-s by operation, bf16, batches of 65536 tokens",
		"| linear 8x8 | 3 | 10.00 | 50.0% | 400.0 | 50.0% |",
		"| between operations | | 6.00 | 30.0% | | |",
	} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("the page lacks %q:\n%s", want, &page)
		}
	}
	data, err := os.ReadFile(base + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	if r.GPU != gpu || r.Ceiling != 800 || len(r.Models) != len(expected) || len(r.Lines) != 3+8*len(expected) {
		t.Errorf("the file holds %q, %g, %d models, %d lines", r.GPU, r.Ceiling, len(r.Models), len(r.Lines))
	}
	if m := r.Models[0]; m.Ours.Budget != 65536 || math.Abs(m.OverBest-2.5) > 1e-9 || math.Abs(m.CeilingShare-0.5) > 1e-9 {
		t.Errorf("the first model is %+v", m)
	}
}

// What does not belong together is not compared, and what is missing is said.
func TestProblems(t *testing.T) {
	for _, c := range []struct{ name, old, new, want string }{
		{"other records", `"digest":"d","device":"NVIDIA H100 80GB HBM3","torch":"2.9","how":"EsmModel","attention":"sdpa","mode":"compile"`,
			`"digest":"e","device":"NVIDIA H100 80GB HBM3","torch":"2.9","how":"EsmModel","attention":"sdpa","mode":"compile"`,
			"esm2-8m, compile: it ran over other records than ours and is left out"},
		{"another GPU", `"cuda NVIDIA H100`, `"cuda NVIDIA H200`, "esm2-8m ran on NVIDIA H200 80GB HBM3, another measurement on " + gpu},
		{"a wrong peer", `"relative_l2":1e-6`, `"relative_l2":0.5`, "esm2-8m: the peer computes something else: 0.5 from the reference, the bar is 2e-05"},
		{"a failed peer", `"mode":"eager"`, `"error":"no | memory","mode":"eager"`, `esm2-8m, eager: no | memory`},
		{"no eager", `"mode":"eager"`, `"mode":"check","relative_l2":0`, "esm2-8m: eager PyTorch was not measured"},
		{"no baseline", `"mode":"baseline","dtype":"fp32"`, `"mode":"check","relative_l2":0`, "esm2-8m: the baseline in fp32 was not measured"},
		{"no bf16", `"dtype":"bf16","budget"`, `"dtype":"fp16","budget"`, "esm2-8m: our forward pass in bf16 was not measured"},
		{"no model", `"model":"esm2-35m"`, `"model":"esm2-15b"`, "esm2-35m: nothing was measured"},
		{"no ceiling", `"kind":"ceiling"`, `"kind":"peer","model":"esm2-8m","mode":"check","relative_l2":0,"digest":"d"`, "the ceiling was not measured"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := strings.ReplaceAll(complete(), c.old, c.new)
			if text == complete() {
				t.Fatal("nothing was replaced")
			}
			lines, err := readLines(strings.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			r, err := join("2026-11-23", lines)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(r.Problems, c.want) {
				t.Errorf("the problems are %q, without %q", r.Problems, c.want)
			}
			if c.name == "other records" && r.Models[0].Compiled != nil {
				t.Error("the peer is compared all the same")
			}
			var page bytes.Buffer
			r.markdown(&page)
			if want := "- " + cell(c.want) + "\n"; !strings.Contains(page.String(), want) {
				t.Errorf("the page lacks %q", want)
			}
		})
	}
}

func TestBadInput(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`{"kind":"forward"`, "entry 1"},
		{ceiling(4096, 1) + `{"kind":"backward","model":"esm2-8m"}`, `entry 2: its kind is "backward"`},
		{`{"kind":"peer","mode":"eager"}`, "entry 1: it names no model"},
		{`{"kind":"forward","model":"esm2-8m"}`, "entry 1: it has no time"},
	} {
		if _, err := readLines(strings.NewReader(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.text, err, c.want)
		}
	}
	if _, err := join("2026-11-23", nil); err == nil {
		t.Error("a report was made of nothing")
	}
	if _, err := run(io.Discard, t.TempDir(), "yesterday", nil); err == nil {
		t.Error("yesterday is a date")
	}
	if _, err := run(io.Discard, t.TempDir(), "2026-11-23", []string{"absent.jsonl"}); err == nil {
		t.Error("an absent file was read")
	}
}
