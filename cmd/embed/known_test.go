package main

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestModelsCommand checks the table that embed models prints, for a model in the cache of Hugging Face, a model in the
// cache of fair-esm, and models in neither cache.
func TestModelsCommand(t *testing.T) {
	_, snapshot := localHub(t)
	embed(t, "pull", "-q", "esm2-8m").wantCode(exitDone)
	torch := filepath.Join(t.TempDir(), "torch")
	t.Setenv("TORCH_HOME", torch)
	file := write(t, filepath.Join(torch, "hub", "checkpoints", "esm2_t12_35M_UR50D.pt"), strings.Repeat("x", 2_600_000))
	r := embed(t, "models").wantCode(exitDone)
	rows := map[string][]string{}
	for line := range strings.Lines(r.stdout) {
		fields := strings.Fields(line)
		rows[fields[0]] = fields[1:]
	}
	for name, want := range map[string]string{
		"dnabert-s": "DNABERT 116 M Apache-2.0 zhihan1996/DNABERT-S - no",
		"esm2-8m":   "ESM-2 7.4 M MIT facebook/esm2_t6_8M_UR50D 1 MB " + snapshot,
		"esm2-35m":  "ESM-2 33.3 M MIT facebook/esm2_t12_35M_UR50D 3 MB " + file,
		"esm2-15b":  "ESM-2 15103 M MIT facebook/esm2_t48_15B_UR50D - no",
	} {
		if !slices.Equal(rows[name], strings.Fields(want)) {
			t.Errorf("%s: %q, want %q", name, rows[name], want)
		}
	}
	if len(rows) != 9 || rows["esm2-tiny"] != nil {
		t.Errorf("%d lines:\n%s", len(rows), r.stdout)
	}
}
