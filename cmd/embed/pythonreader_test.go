package main

import (
	"path/filepath"
	"testing"

	"seqembed/internal/readback"
)

// TestPythonReader reads arrays with the Python package of the release: ids, shape and type, also of several layers.
func TestPythonReader(t *testing.T) {
	reader, err := filepath.Abs("../../deploy/python")
	if err != nil {
		t.Fatal(err)
	}
	workspace(t)
	write(t, "a.faa", ">one x\nMKV\n>two\nMKVLL\n")
	embed(t, "--esm-model", tiny, "-o", "out", "--format", "npy", "--layers", "0,1", "--pool", "mean,max", "a.faa").wantCode(exitDone)
	embed(t, "--esm-model", tiny, "-o", "out", "--format", "safetensors", "--dtype-out", "fp16", "a.faa").wantCode(exitDone)
	got := readback.Python(t, "numpy", `
import sys
sys.path.insert(0, sys.argv[1])
import seqembed
for path in sys.argv[2:]:
    ids, x = seqembed.read(path)
    print(path, ids, x.shape, x.dtype)
`, reader, "out/a.esm2-tiny.mean.layer0.npy", "out/a.esm2-tiny.max.layer1.npy", "out/a.esm2-tiny.safetensors")
	want := "out/a.esm2-tiny.mean.layer0.npy ['one', 'two'] (2, 64) float32\nout/a.esm2-tiny.max.layer1.npy ['one', 'two'] (2, 64) float32\n" +
		"out/a.esm2-tiny.safetensors ['one', 'two'] (2, 64) float16\n"
	if got != want {
		t.Errorf("Python reads\n%s", got)
	}
}
