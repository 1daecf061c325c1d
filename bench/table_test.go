package bench

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// printTable runs the script bench/gpu/table.py, which prints tables of measurements, on lines of JSON.
func printTable(t *testing.T, lines ...any) (stdout, stderr string, err error) {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip(err)
	}
	var text []byte
	for _, l := range lines {
		line, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		text = append(append(text, line...), '\n')
	}
	path := filepath.Join(t.TempDir(), "bench.jsonl")
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
	var out, errors strings.Builder
	c := exec.Command(python, "gpu/table.py", path)
	c.Stdout, c.Stderr = &out, &errors
	err = c.Run()
	return out.String(), errors.String(), err
}

// pass returns a measurement of one forward pass of a model. The pass takes one second for 10,000 tokens, and its
// records are the same for every model.
func pass(model string, flops float64) measured {
	return measured{Kind: "forward", Model: model, Digest: "the same", Records: 5, Tokens: 10000, FLOPs: flops, DType: "bf16",
		Budget: 4096, Seconds: []float64{1}, Median: 1, Min: 1, Max: 1, Rate: 10000}
}

// TestTableCountsByModel checks that bench/gpu/table.py computes the rate in each row with the FLOPs of the row's
// model, even if the records of several models are the same. It also checks the row of a peer (another engine), whose
// measurements contain no FLOPs.
func TestTableCountsByModel(t *testing.T) {
	peer := map[string]any{"kind": "peer", "model": "esm2-8m", "digest": "the same", "torch": "2", "how": "padded", "attention": "sdpa",
		"mode": "eager", "dtype": "bf16", "budget": 4096, "records": 5, "tokens": 10000, "padded": 12500, "seconds": []float64{2},
		"median": 2, "min": 2, "max": 2, "tokens_per_second": 5000}
	machine := map[string]any{"kind": "machine", "card": "a card", "script": "visit.sh 3"}
	out, stderr, err := printTable(t, machine, pass("esm2-8m", 20e12), peer, pass("esm2-650m", 400e12))
	if err != nil {
		t.Fatalf("%v: %s", err, stderr)
	}
	for _, row := range []string{
		"| esm2-8m | embed | bf16 | 4096 | 5 | 0.0% | 10000 | 20.0 | 2.0% |",
		"| esm2-8m | PyTorch 2, padded, sdpa, eager | bf16 | 4096 | 5 | 20.0% | 5000 | 10.0 | 1.0% |",
		"| esm2-650m | embed | bf16 | 4096 | 5 | 0.0% | 10000 | 400.0 | 40.4% |",
	} {
		if !strings.Contains(out, row) {
			t.Errorf("the table has no row %q:\n%s", row, out)
		}
	}
}

// TestTableRefusesTheImpossible checks that bench/gpu/table.py fails if the rate of a pass or of an operation is above
// the peak of the GPU, and that it still prints the other rows.
func TestTableRefusesTheImpossible(t *testing.T) {
	operation := pass("esm2-650m", 400e12)
	operation.ProfileSeconds, operation.Profile = 1, []measuredOps{{Op: "linear 64x64", Calls: 1, Seconds: 0.5, FLOPs: 500e12}}
	for name, line := range map[string]measured{"esm2-8m, embed, at 2000.0 TFLOP/s, 202.2%": pass("esm2-8m", 2000e12),
		"esm2-650m, embed, linear 64x64 at 1000.0 TFLOP/s, 101.1%": operation} {
		out, stderr, err := printTable(t, pass("dnabert-s", 400e12), line)
		if err == nil || !strings.Contains(stderr, name) {
			t.Errorf("%v, and not %q: %s", err, name, stderr)
		}
		if !strings.Contains(out, "| dnabert-s | embed |") {
			t.Errorf("the possible is not printed:\n%s", out)
		}
	}
}
