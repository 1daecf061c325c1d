//go:build linux && (amd64 || arm64)

package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"seqembed/kernels/cuda/softgpu"
)

// onSoftwareGPU returns the environment in which a child process finds a software GPU, a CUDA driver that runs kernels
// on the CPU. It skips the test in short mode and, except in CI, without a C++ compiler.
func onSoftwareGPU(t *testing.T) []string {
	t.Helper()
	if testing.Short() {
		t.Skip("the software GPU takes part in the full test run only")
	}
	folder, err := softgpu.Committed()
	if errors.Is(err, softgpu.ErrNoCompiler) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return []string{"LD_LIBRARY_PATH=" + folder}
}

// embedOn runs the program in a process of its own.
func embedOn(t *testing.T, environ []string, args ...string) result {
	t.Helper()
	cmd := child(t, environ, args...)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return wait(t, cmd, &stdout, &stderr)
}

// samples writes a folder of DNA and protein files of several sizes.
func samples(t *testing.T) {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 1))
	text := func(alphabet string, records, longest int) string {
		var b strings.Builder
		for i := range records {
			fmt.Fprintf(&b, ">r%d\n", i)
			for range 20 + rng.IntN(longest) {
				b.WriteByte(alphabet[rng.IntN(len(alphabet))])
			}
			b.WriteByte('\n')
		}
		return b.String()
	}
	if err := os.Mkdir("samples", 0o777); err != nil {
		t.Fatal(err)
	}
	for i, records := range []int{9, 3, 5} {
		write(t, fmt.Sprintf("samples/contigs%d.fna", i), text("ACGT", records, 150))
		write(t, fmt.Sprintf("samples/proteins%d.faa", i), text("LAGVSERTIDPKQNFYMHWC", 2*records, 60))
	}
}

// outputs returns the contents of all Parquet files in a folder, by name.
func outputs(t *testing.T, folder string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.parquet"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(f)] = string(text)
	}
	return all
}

// sameOutputs fails the test unless two results of the function outputs have the same files with the same bytes.
func sameOutputs(t *testing.T, what string, want, got map[string]string) {
	t.Helper()
	if len(want) != len(got) {
		t.Errorf("%s: %d outputs, want %d", what, len(got), len(want))
	}
	for name, bytes := range want {
		if got[name] != bytes {
			t.Errorf("%s: %s is not the same", what, name)
		}
	}
}

// TestGPUsShareFiles checks that four GPUs, and one GPU that --gpus names twice, write the same bytes as one GPU,
// although the order of the work differs.
func TestGPUsShareFiles(t *testing.T) {
	gpu := onSoftwareGPU(t)
	workspace(t)
	samples(t)
	var want map[string]string
	for i, gpus := range []string{"0", "0,1,2,3", "0,0"} {
		out := fmt.Sprint("out", i)
		environ := append(gpu, "SOFTGPU_DEVICES=4", fmt.Sprint("SOFTGPU_SEED=", i))
		r := embedOn(t, environ, "-gpus", gpus, "-dnabert-batch-size", "4096", "--dnabert-model", tinyDNA, "--esm-model", tiny, "-o", out, "samples/").wantCode(0)
		if !strings.Contains(r.stderr, "software GPU sm_90") {
			t.Fatalf("another device has computed:\n%s", r.stderr)
		}
		for device := range strings.SplitSeq(gpus, ",") {
			if !strings.Contains(r.stderr, "weights are loaded  device=cuda:"+device+" ") {
				t.Errorf("-gpus %s: device %s has loaded no weights:\n%s", gpus, device, r.stderr)
			}
		}
		if i == 0 {
			if want = outputs(t, out); len(want) != 6 {
				t.Fatalf("%d outputs", len(want))
			}
			continue
		}
		sameOutputs(t, "-gpus "+gpus, want, outputs(t, out))
	}
}

// TestOldGPU checks that a GPU that is too old is named and skipped, and that the run computes on another GPU.
func TestOldGPU(t *testing.T) {
	gpu := append(onSoftwareGPU(t), "SOFTGPU_DEVICES=sm_75,sm_90")
	r := embedOn(t, gpu, "devices").wantCode(0)
	for _, says := range []string{"device 0: software GPU sm_75", "cannot be used", "device 1: software GPU sm_90", "cuBLASLt: 13.1.0"} {
		if !strings.Contains(r.stdout, says) {
			t.Errorf("embed devices does not say %q:\n%s", says, r.stdout)
		}
	}
	workspace(t)
	write(t, "a.faa", ">a\nMKVLWAGTRE\n")
	r = embedOn(t, gpu, "--esm-model", tiny, "--esm-batch-size", "100", "-o", "out", "a.faa").wantCode(0)
	if !strings.Contains(r.stderr, "compute capability 7.5") || !strings.Contains(r.stderr, "cuda:1") {
		t.Errorf("the old device is not named, or the other one did not compute:\n%s", r.stderr)
	}
}

// TestFaultsOfDevices makes calls of the GPU driver fail. All outputs that are written must have the right bytes, and
// the exit code must say whether outputs are missing. If the run has failed, the same command must succeed when no
// calls fail.
func TestFaultsOfDevices(t *testing.T) {
	gpu := onSoftwareGPU(t)
	workspace(t)
	samples(t)
	run := func(out, gpus string, environ ...string) result {
		return embedOn(t, append(gpu, environ...), "--gpus", gpus, "--esm-batch-size", "200", "--esm-model", tiny, "-o", out,
			"samples/proteins0.faa", "samples/proteins1.faa", "samples/proteins2.faa")
	}
	run("want", "0").wantCode(0)
	want := outputs(t, "want")
	check := func(fault, gpus string) result {
		t.Helper()
		out := "out-" + fault + "-" + gpus
		r := run(out, gpus, "SOFTGPU_DEVICES=2", "SOFTGPU_FAULT="+fault)
		got := outputs(t, out)
		for name, bytes := range got {
			if want[name] != bytes {
				t.Errorf("%s on %s: %s is not the same", fault, gpus, name)
			}
		}
		switch {
		case r.code == 0 && len(got) != len(want):
			t.Errorf("%s on %s: exit code 0 with %d outputs of %d\n%s", fault, gpus, len(got), len(want), r.stderr)
		case r.code == 2 && len(got) == 0, r.code == 1 && len(got) > 0, r.code > 2 || r.code < 0:
			t.Errorf("%s on %s: exit code %d with %d outputs\n%s", fault, gpus, r.code, len(got), r.stderr)
		}
		if r.code != 0 {
			run(out, gpus, "SOFTGPU_DEVICES=2").wantCode(0)
			sameOutputs(t, fault+", again", want, outputs(t, out))
		}
		return r
	}
	codes := map[string]int{}
	for n := 1; n <= 90; n += 10 + n/3 { // a run makes about 80 allocations of GPU memory
		codes[fmt.Sprint("alloc ", check(fmt.Sprint("alloc:", n), "0").code)]++
	}
	for _, n := range []int{1, 70} {
		codes[fmt.Sprint("launch ", check(fmt.Sprint("launch:", n), "0").code)]++
		if r := check(fmt.Sprint("lost:", n), "0"); r.code == 0 || !strings.Contains(r.stderr, "CUDA_ERROR_UNKNOWN") {
			t.Errorf("the only device is lost at launch %d: exit code %d\n%s", n, r.code, r.stderr)
		}
		if r := check(fmt.Sprint("lost:", n), "0,1"); r.code != 0 {
			t.Errorf("one of two devices is lost at launch %d: exit code %d\n%s", n, r.code, r.stderr)
		}
	}
	if r := check("kernel:pool", "0"); r.code == 0 || !strings.Contains(r.stderr, "CUDA_ERROR_ILLEGAL_ADDRESS") {
		t.Errorf("a kernel fails on every device: exit code %d\n%s", r.code, r.stderr)
	}
	t.Logf("how runs ended: %v", codes)
}

// TestGPUThatHangs checks that a device whose kernel never ends is given up. Another device must continue its work. If
// there is no other device, the run must end with an error that names --stall-timeout.
func TestGPUThatHangs(t *testing.T) {
	gpu := append(onSoftwareGPU(t), "SOFTGPU_DEVICES=2", "SOFTGPU_FAULT=hang:70")
	workspace(t)
	samples(t)
	args := []string{"--esm-batch-size", "200", "--esm-model", tiny, "samples/proteins0.faa", "samples/proteins1.faa", "samples/proteins2.faa"}
	embedOn(t, gpu[:1], append(args, "--gpus", "0", "-o", "want")...).wantCode(0)
	want := outputs(t, "want")
	// With SOFTGPU_SEED=0 the software GPU runs a kernel at its launch, with 1 at a later call.
	r := embedOn(t, append(gpu, "SOFTGPU_SEED=0"), append(args, "--gpus", "0,1", "--stall-timeout", "6s", "-o", "two")...).wantCode(0)
	if !strings.Contains(r.stderr, "the device is lost, the other devices continue") || !strings.Contains(r.stderr, "no progress for 6s") {
		t.Errorf("no device is lost:\n%s", r.stderr)
	}
	sameOutputs(t, "two devices", want, outputs(t, "two"))
	r = embedOn(t, append(gpu, "SOFTGPU_SEED=1"), append(args, "--gpus", "0", "--stall-timeout", "2s", "-o", "one")...)
	if r.code != 1 && r.code != 2 || (r.code == 2) != (len(outputs(t, "one")) > 0) || !strings.Contains(r.stderr, "--stall-timeout allows more time") ||
		!strings.Contains(r.stderr, "hangs, as SOFTGPU_FAULT says") {
		t.Errorf("exit code %d with %d outputs\n%s", r.code, len(outputs(t, "one")), r.stderr)
	}
	embedOn(t, gpu[:1], append(args, "--gpus", "0", "-o", "one")...).wantCode(0)
	sameOutputs(t, "again", want, outputs(t, "one"))
}

// TestDriverWithoutFunction checks runs with a driver that lacks a function that the program needs. A run with --gpus 0
// must fail with an error that names the function. A run without --gpus must compute on the CPU, and the log must name
// the function.
func TestDriverWithoutFunction(t *testing.T) {
	onSoftwareGPU(t)
	committed, err := softgpu.Committed()
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	if err := softgpu.BuildWithout(committed, folder, "cuMemGetInfo_v2"); err != nil {
		t.Fatal(err)
	}
	gpu := []string{"LD_LIBRARY_PATH=" + folder}
	workspace(t)
	write(t, "a.faa", ">a\nMKVLWAGTRE\n")
	const says = "libcuda lacks a function: function cuMemGetInfo_v2"
	if r := embedOn(t, gpu, "--gpus", "0", "--esm-model", tiny, "-o", "out", "a.faa").wantCode(1); !strings.Contains(r.stderr, says) {
		t.Errorf("it does not say %q:\n%s", says, r.stderr)
	}
	if r := embedOn(t, gpu, "--esm-model", tiny, "-o", "out", "a.faa").wantCode(0); !strings.Contains(r.stderr, says) {
		t.Errorf("it does not say %q:\n%s", says, r.stderr)
	}
}

// TestSignalWhileAKernelHangs checks that a signal ends a run in which a kernel never ends, whether the run hangs in
// the launch of the kernel or in a later call that waits for the kernel.
func TestSignalWhileAKernelHangs(t *testing.T) {
	gpu := append(onSoftwareGPU(t), "SOFTGPU_FAULT=hang:pool", graceVariable+"=300ms")
	workspace(t)
	samples(t)
	for _, seed := range []string{"0", "1"} { // with 0 the kernel runs at its launch, with 1 at a later call
		cmd, log := running(t, nil, append(gpu, "SOFTGPU_SEED="+seed), "--gpus", "0", "--esm-model", tiny, "-o", "out"+seed, "samples/proteins1.faa")
		log.await(t, "hangs, as SOFTGPU_FAULT says")
		send(t, cmd, syscall.SIGTERM)
		if code := ended(cmd); code != exitInterrupted || !strings.Contains(log.String(), "interrupted while a device, a disk or a lock was busy") {
			t.Errorf("seed %s: exit code %d\n%s", seed, code, log)
		}
	}
}
