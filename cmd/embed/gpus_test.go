package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"seqembed/internal/monitor"
	"seqembed/kernels"
	"seqembed/kernels/cpu"
	"seqembed/kernels/cuda"
	"seqembed/kernels/cuda/gpu"
)

// fakeMachine is a machine with fake GPUs. Each fake GPU computes with one thread of the CPU.
type fakeMachine struct {
	names    []string // names of the GPUs; a GPU with an empty name cannot be used
	major    int      // major compute capability of the GPUs; 0 means 8
	budget   int      // the batch size in tokens that Budget returns
	products []cuda.ProductReport
	noCublas error
	lacks    bool // whether Compile refuses every program on all GPUs
	broken   bool // whether Compile refuses every program on the first GPU
	sensors  bool // whether each GPU reports a sample of its sensors for each batch
	memory   int  // most tokens in unfinished batches on a GPU with sensors; 0 means no limit

	mu    sync.Mutex
	open  int
	opens []string // "ordinal dtype" of each GPU that was opened, such as "0 bf16"
	asked [2]int   // numbers of activation columns in float32 and in operand precision, from the last Budget call

	report func(pci string, s monitor.Sample) // argument of the last call of watchSensors
}

func (f *fakeMachine) machine() machine {
	return machine{findGPUs: f.find, openGPU: f.openGPU, watchSensors: f.watchSensors, virNucPro: virNucPro}
}

func (f *fakeMachine) watchSensors(_ []string, report func(pci string, s monitor.Sample)) (stop func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.report = report
	return func() {}
}

// sample reports a sample of the sensors of the GPU with the bus address pci.
func (f *fakeMachine) sample(pci string, s monitor.Sample) {
	f.mu.Lock()
	report := f.report
	f.mu.Unlock()
	report(pci, s)
}

func (f *fakeMachine) find() cuda.Report {
	r := cuda.Report{Cublas: cuda.Cublas{Err: errors.New("not looked for")}}
	if len(f.names) == 0 {
		r.Err = fmt.Errorf("no fake driver: %w", cuda.ErrUnavailable)
	}
	for i, name := range f.names {
		d := cuda.Device{Info: gpu.Info{Ordinal: i, Name: name, Major: cmp.Or(f.major, 8)}}
		if name == "" {
			d.Name, d.Err = "Old GPU", errors.New("it is too old")
		}
		r.Devices = append(r.Devices, d)
	}
	return r
}

func (f *fakeMachine) openGPU(ordinal int, dtype kernels.DType) (kernels.Backend, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ordinal >= len(f.names) || f.names[ordinal] == "" {
		return nil, fmt.Errorf("there is no device %d: %w", ordinal, cuda.ErrUnavailable)
	}
	f.open++
	f.opens = append(f.opens, fmt.Sprint(ordinal, " ", dtype))
	return &fakeGPU{cpu.New(1), f, f.names[ordinal] + " " + dtype.String(), fmt.Sprint("bus ", ordinal)}, nil
}

type fakeGPU struct {
	*cpu.Backend
	machine *fakeMachine
	name    string
	pci     string
}

func (g *fakeGPU) Name() string { return g.name }

func (g *fakeGPU) Device() cuda.Device {
	return cuda.Device{Info: gpu.Info{Name: g.name, PCI: g.pci, Major: cmp.Or(g.machine.major, 8)}}
}

func (g *fakeGPU) Budget(p *kernels.Program) (int, error) {
	g.machine.mu.Lock()
	defer g.machine.mu.Unlock()
	g.machine.asked = [2]int{}
	for _, s := range p.Plan(kernels.Needs{}).Slots {
		if s.PerSequence {
			continue
		}
		if s.Precision&kernels.Float32 != 0 {
			g.machine.asked[0] += s.Cols
		}
		if s.Precision&kernels.Operand != 0 {
			g.machine.asked[1] += s.Cols
		}
	}
	return g.machine.budget, nil
}

func (g *fakeGPU) Compile(p *kernels.Program, l kernels.Limits) (kernels.Runner, error) {
	if g.machine.lacks || g.machine.broken && g.pci == "bus 0" {
		return nil, &kernels.OpError{Op: "attention", Shapes: "[T 120], 1 heads", Err: kernels.ErrUnsupported}
	}
	r, err := g.Backend.Compile(p, l)
	if g.machine.sensors && err == nil {
		r = &sensedRunner{Runner: r, gpu: g}
	}
	return r, err
}

// sensedRunner is a runner of a GPU with sensors. The sensors show a utilization of 50% for the first GPU, and of 51%
// for the second.
type sensedRunner struct {
	kernels.Runner
	gpu      *fakeGPU
	inFlight int // number of tokens in batches that have started and not ended
}

func (r *sensedRunner) Start(b kernels.Batch, dst [][]float32) (wait func() error) {
	r.gpu.machine.sample(r.gpu.pci, monitor.Sample{Utilization: 50 + monitor.Value(r.gpu.pci[len(r.gpu.pci)-1]-'0'), MemoryUsed: 1 << 30})
	r.inFlight += len(b.IDs)
	tooMany := r.gpu.machine.memory > 0 && r.inFlight > r.gpu.machine.memory
	finish := r.Runner.Start(b, dst)
	return func() error {
		err := finish()
		r.inFlight -= len(b.IDs)
		if tooMany {
			return kernels.ErrOutOfMemory
		}
		return err
	}
}

func (r *sensedRunner) Close() error {
	if r.inFlight > 0 {
		return fmt.Errorf("nobody has waited for %d tokens", r.inFlight)
	}
	return r.Runner.Close()
}

func (g *fakeGPU) Products() []cuda.ProductReport { return g.machine.products }
func (g *fakeGPU) Cublas() cuda.Cublas            { return cuda.Cublas{Err: g.machine.noCublas} }

func (g *fakeGPU) Close() error {
	g.machine.mu.Lock()
	defer g.machine.mu.Unlock()
	g.machine.open--
	return g.Backend.Close()
}

// embed runs the program on the machine, and checks that the program has closed all GPUs.
func (f *fakeMachine) embed(t *testing.T, args string) result {
	t.Helper()
	var stdout, stderr strings.Builder
	code := runOn(context.Background(), f.machine(), strings.Fields(args), nil, &stdout, &stderr)
	if f.open != 0 {
		t.Errorf("%d GPUs are still open", f.open)
	}
	return result{t, code, stdout.String(), stderr.String()}
}

// manyFiles writes five files of DNA and five of proteins, more than there are GPUs. It returns the arguments that
// select the models and the files.
func manyFiles(t *testing.T) string {
	workspace(t)
	for i := range 5 {
		write(t, fmt.Sprintf("in/p%d.faa", i), fmt.Sprintf(">a%d\nMKVLAAGIVALLLAG\n", i)+">b\n"+strings.Repeat("MKWV", 9*i+3)+"\n")
		write(t, fmt.Sprintf("in/n%d.fna", i), ">a\nACGTTGCAAC\n>b\n"+strings.Repeat("ACGGT", 20*i+3)+"\n")
	}
	return " --dnabert-model " + tinyDNA + " --esm-model " + tiny + " in"
}

// contents returns the contents of a folder's files by name. It leaves out the manifest and the report, which contain
// times.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	list := map[string]string{}
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		list[e.Name()] = string(content)
	}
	delete(list, "manifest.jsonl")
	delete(list, "report.json")
	return list
}

// TestGPUsAgree checks that one GPU, two GPUs, and a GPU that --gpus names twice write the same bytes.
func TestGPUsAgree(t *testing.T) {
	args := manyFiles(t)
	var one map[string]string
	for _, gpus := range []string{"0", "0,0", "0,1", "1,0,1"} {
		f := &fakeMachine{names: []string{"GPU", "GPU"}, budget: 300}
		out := "out" + strings.ReplaceAll(gpus, ",", "-")
		f.embed(t, "--gpus "+gpus+" --out "+out+args).wantCode(0)
		got := contents(t, out)
		if one == nil {
			one = got
		}
		if len(got) != 10 || !maps.Equal(got, one) {
			t.Errorf("--gpus %s writes other files than --gpus 0: %v", gpus, slices.Sorted(maps.Keys(got)))
		}
	}
}

// TestModelThatGPUsDoNotCompute checks the error for a model that a GPU does not compute. The error must say so, and
// name the flag that selects the CPU.
func TestModelThatGPUsDoNotCompute(t *testing.T) {
	args := manyFiles(t)
	f := &fakeMachine{names: []string{"GPU", "GPU"}, budget: 300, lacks: true}
	r := f.embed(t, "--out out"+args).wantCode(exitNothing)
	says := " does not compute this model (compiling for 300 tokens: attention [T 120], 1 heads: unsupported operation); --gpus none computes it on the CPU\n"
	if !strings.Contains(r.stderr, "embed: cuda:") || !strings.HasSuffix(r.stderr, says) || strings.Contains(r.stderr, "lost") {
		t.Errorf("the error is %q", r.stderr)
	}
	f.embed(t, "--gpus none --out out"+args).wantCode(exitDone)
}

// TestAllGPUs checks that by default all GPUs of the most frequent kind are used, and that the log names the other
// GPUs. A rerun on one of the used GPUs must continue the run.
func TestAllGPUs(t *testing.T) {
	args := manyFiles(t)
	f := &fakeMachine{names: []string{"GPU B", "GPU A", "", "GPU A"}, budget: 200}
	r := f.embed(t, "--out out"+args).wantCode(0)
	for _, part := range []string{"Old GPU", "it is too old", "computing on a GPU  device=cuda:1", "computing on a GPU  device=cuda:3",
		"skipping a GPU of another kind", `device=cuda:0 backend="GPU B bf16" used="GPU A bf16"`} {
		if !strings.Contains(r.stderr, part) {
			t.Errorf("the log does not mention %q:\n%s", part, r.stderr)
		}
	}
	if strings.Contains(r.stderr, "weights  device=cuda:0") {
		t.Errorf("cuda:0 took part:\n%s", r.stderr)
	}
	manifest, err := os.ReadFile("out/manifest.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	if text := string(manifest); strings.Count(text, `"backend":"GPU A bf16"`) != 20 || strings.Count(text, `"dtype":"bf16"`) != 20 {
		t.Errorf("the manifest does not say which kind of GPU made the outputs:\n%s", text)
	}
	if want := [2]int{64, 64 + 256}; f.asked != want {
		t.Errorf("a budget for %v columns, want %v", f.asked, want)
	}
	before := contents(t, "out")
	if err := os.Remove("out/p4.esm2-tiny.parquet"); err != nil {
		t.Fatal(err)
	}
	r = f.embed(t, "--gpus 3 --out out"+args).wantCode(0)
	if strings.Count(r.stdout, "complete already") != 9 || !maps.Equal(contents(t, "out"), before) {
		t.Errorf("the rerun: %s", r.stdout)
	}
	// Outputs of different kinds of GPU must not be mixed.
	other := &fakeMachine{names: []string{"GPU C"}, budget: 200}
	if r := other.embed(t, "--out out"+args).wantCode(1); !strings.Contains(r.stderr, "GPU C bf16") || !strings.Contains(r.stderr, "--force") {
		t.Errorf("another GPU: %s", r.stderr)
	}
}

// TestUntestedGPUs checks that one line of the log names the GPU that the program was tested on, if the machine has
// GPUs of another compute capability. On GPUs of the tested compute capability there must be no such line.
func TestUntestedGPUs(t *testing.T) {
	args := manyFiles(t)
	for major, lines := range map[int]int{8: 1, 9: 0, 10: 1} {
		f := &fakeMachine{names: []string{"GPU", "GPU"}, major: major, budget: 200}
		r := f.embed(t, fmt.Sprint("--out out-", major, args)).wantCode(0)
		if n := strings.Count(r.stderr, "tested only on an NVIDIA H200"); n != lines {
			t.Errorf("compute capability %d.0: %d lines, want %d:\n%s", major, n, lines, r.stderr)
		}
	}
}

func TestGPUsThatAreNotThere(t *testing.T) {
	args := manyFiles(t)
	f := &fakeMachine{names: []string{"GPU"}, budget: 200}
	if r := f.embed(t, "--gpus 0,1 --out out"+args).wantCode(1); !strings.Contains(r.stderr, "device 1") || !strings.Contains(r.stderr, "embed devices") {
		t.Errorf("a missing device: %s", r.stderr)
	}
	if _, err := os.Stat("out"); err == nil {
		t.Error("a run without its device wrote something")
	}
	r := f.embed(t, "--gpus none --out cpu"+args).wantCode(0)
	if len(f.opens) != 1 || strings.Contains(r.stderr, "cuda:0") {
		t.Errorf("--gpus none opened %v", f.opens)
	}
	none := &fakeMachine{names: []string{""}}
	if r := none.embed(t, "--out all"+args).wantCode(0); !strings.Contains(r.stderr, "too old") || !maps.Equal(contents(t, "all"), contents(t, "cpu")) {
		t.Errorf("with an old GPU alone: %s", r.stderr)
	}
	if r := none.embed(t, "--dtype fp16 --out half"+args).wantCode(1); !strings.Contains(r.stderr, "--dtype fp16 needs a GPU") {
		t.Errorf("half precision without a GPU: %s", r.stderr)
	}
}

// TestGPUSettings checks that --dtype and the batch size reach the GPU, and that the GPU is opened once for both
// models.
func TestGPUSettings(t *testing.T) {
	args := manyFiles(t)
	f := &fakeMachine{names: []string{"GPU"}, budget: 200}
	r := f.embed(t, "-v --dtype fp16 --esm-batch-size 30 --out out"+args).wantCode(0)
	if want := []string{"0 fp16"}; !slices.Equal(f.opens, want) {
		t.Errorf("opened %v, want %v: once for both models", f.opens, want)
	}
	if !strings.Contains(r.stderr, "sequences=2 tokens=") && !strings.Contains(r.stderr, "sequences=1 tokens=") {
		t.Errorf("no batches in the log:\n%s", r.stderr)
	}
	for line := range strings.Lines(r.stderr) {
		var sequences, tokens int
		if at := strings.Index(line, "sequences="); at >= 0 && strings.Contains(line, ".faa") {
			if _, err := fmt.Sscanf(line[at:], "sequences=%d tokens=%d", &sequences, &tokens); err == nil && sequences > 1 && tokens > 30 {
				t.Errorf("over the budget of 30: %s", line)
			}
		}
	}
}

// TestProductsAreLogged checks that the verbose log says, once for each device, which algorithms computed the matrix
// products. Products without cuBLAS must cause a warning even if the log is not verbose.
func TestProductsAreLogged(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds under the race detector; other tests run the same goroutines")
	}
	args := manyFiles(t)
	const algorithm = "algorithm 66, tile 20"
	taken := cuda.ProductReport{Product: cuda.Product{N: 3, K: 2}, Algorithm: algorithm, AskedRows: 4096, Calls: 5, Rows: 500}
	absent := cuda.ProductReport{Product: cuda.Product{N: 5, K: 2}, Refusal: "there is none", OwnCalls: 5, OwnRows: 500}
	refused := cuda.ProductReport{Product: cuda.Product{N: 7, K: 2}, Algorithm: algorithm, Calls: 4, Rows: 400, OwnCalls: 1, OwnRows: 100,
		Refusal: "it refuses 100 rows"}
	f := &fakeMachine{names: []string{"GPU", "GPU"}, budget: 300, products: []cuda.ProductReport{taken}}
	if r := f.embed(t, "--out quiet"+args).wantCode(0); strings.Contains(r.stderr, "matrix products") {
		t.Errorf("without trouble and without --verbose there is a line:\n%s", r.stderr)
	}
	f.products = []cuda.ProductReport{taken, absent, refused}
	r := f.embed(t, "-v --out verbose"+args).wantCode(0)
	for _, device := range []string{"cuda:0", "cuda:1"} {
		for _, p := range f.products {
			line := fmt.Sprintf("DEBUG matrix products  device=%s shape=%q", device, p)
			// The run has two models with the same products. The second must not add lines.
			if n := strings.Count(r.stderr, line); n != 1 {
				t.Errorf("%d lines %s in\n%s", n, line, r.stderr)
			}
		}
	}
	r = f.embed(t, "--gpus 0 --out warned"+args).wantCode(0)
	for _, line := range []string{
		"WARN  cuBLAS has no algorithm for some matrix products", fmt.Sprintf("device=cuda:0 shapes=%q\n", absent),
		"may depend on the batch that its record was in; EMBED_CUBLAS=none rules that out",
		fmt.Sprintf("device=cuda:0 shapes=%q\n", refused),
	} {
		if n := strings.Count(r.stderr, line); n != 1 {
			t.Errorf("%d lines with %s in\n%s", n, line, r.stderr)
		}
	}
	if strings.Contains(r.stderr, taken.String()) {
		t.Errorf("what cuBLAS took is in the log without --verbose:\n%s", r.stderr)
	}
}

// TestWithoutCublas checks that one line of the log gives the reason why a GPU multiplies without cuBLAS, and how much
// slower the GPU is. The line is a warning unless the user has turned cuBLAS off.
func TestWithoutCublas(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds under the race detector; other tests run the same goroutines")
	}
	args := manyFiles(t)
	for out, c := range map[string]struct {
		err  error
		line string
	}{
		"missing": {errors.New("not found"), "WARN  no cuBLAS: not found: the program's own kernels multiply; on an H200 they made ESM-2 650M 35% slower in bf16 (embed devices --verbose"},
		"off":     {cuda.ErrCublasOff, "INFO  no cuBLAS: EMBED_CUBLAS=none: the program's own kernels multiply;"},
		"there":   {nil, ""},
	} {
		f := &fakeMachine{names: []string{"GPU", "GPU"}, budget: 300, noCublas: c.err}
		r := f.embed(t, "--out "+out+args).wantCode(0)
		n := strings.Count(r.stderr, "no cuBLAS")
		if n > 1 || (n == 1) != (c.err != nil) || !strings.Contains(r.stderr, c.line) {
			t.Errorf("%s:\n%s", out, r.stderr)
		}
	}
}

func TestDevices(t *testing.T) {
	f := &fakeMachine{names: []string{"Fast GPU", ""}}
	r := f.embed(t, "devices").wantCode(0)
	for _, part := range []string{"cpu ", "Fast GPU", "Old GPU", "cannot be used: it is too old"} {
		if !strings.Contains(r.stdout, part) {
			t.Errorf("no %q in\n%s", part, r.stdout)
		}
	}
	for _, args := range []string{"devices 0", "devices in.fna", "devices --gpus 0", "devices --verbose=perhaps"} {
		f.embed(t, args).wantCode(64).wantProblem("embed devices")
	}
	r = embedWith(t, []string{"EMBED_VERBOSE=perhaps"}, "devices").wantCode(64)
	if !strings.Contains(r.stderr, "EMBED_VERBOSE") {
		t.Error(r.stderr)
	}
	for _, help := range []string{"--help", "-h", "-help"} {
		if r := embed(t, "devices", help).wantCode(0); r.stdout != devicesUsage || r.stderr != "" {
			t.Errorf("%s writes\n%s%s", help, r.stdout, r.stderr)
		}
	}
}

// TestDevicesIsShort checks that embed devices prints only one line about GPUs if there is no driver. The line names
// the command that lists the places where the driver was searched.
func TestDevicesIsShort(t *testing.T) {
	place := cuda.Attempt{Path: "/some/libcuda.so.1", Err: fs.ErrNotExist}
	m := machine{findGPUs: func() cuda.Report {
		return cuda.Report{DriverSearch: []cuda.Attempt{place}, Err: errors.New("no fake driver"),
			Cublas: cuda.Cublas{Err: errors.New("no cuBLAS")}}
	}}
	run := func(environ []string, args ...string) string {
		t.Helper()
		var stdout, stderr strings.Builder
		args = append([]string{"devices"}, args...)
		if code := runOn(context.Background(), m, args, environ, &stdout, &stderr); code != 0 || stderr.Len() > 0 {
			t.Fatalf("exit code %d: %s", code, &stderr)
		}
		return stdout.String()
	}
	short := run(nil)
	const line = "\nno device: no fake driver (embed devices --verbose lists the places searched)\n"
	if !strings.HasSuffix(short, line) || strings.Count(short, "\n") != 2 {
		t.Errorf("the short report is\n%s", short)
	}
	long := run(nil, "--verbose")
	if !strings.Contains(long, "\n  /some/libcuda.so.1: not there\n") || strings.Contains(long, "--verbose") {
		t.Errorf("the long report is\n%s", long)
	}
	if run(nil, "-v") != long || run(nil, "-verbose") != long || run([]string{"EMBED_VERBOSE=1"}) != long {
		t.Error("-v, -verbose and EMBED_VERBOSE=1 are not --verbose")
	}
}

// TestGPUReport checks the lines of embed devices about a machine with GPUs. The places where cuBLAS was searched and
// the line about compiled kernels must appear only in the detailed report.
func TestGPUReport(t *testing.T) {
	devices := []cuda.Device{{Info: gpu.Info{Name: "First", Major: 9, TotalMemory: 140 << 30}, FreeMemory: 100 << 30},
		{Info: gpu.Info{Ordinal: 1, Name: "Second", Major: 7, Minor: 5, TotalMemory: 15 << 30}, Err: errors.New("it is too old")}}
	r := cuda.Report{DriverVersion: "12.4", Devices: devices, KernelCache: "/cache",
		Cublas: cuda.Cublas{Version: "12.4.5", Searched: []cuda.Attempt{{Path: "/x/libcublasLt.so.12"}}}}
	want := `driver: supports CUDA 12.4
device 0: First, compute capability 9.0, 140.0 GiB, 100.0 GiB free
device 1: Second, compute capability 7.5, 15.0 GiB: cannot be used: it is too old
cuBLASLt: 12.4.5
tested on: ` + cuda.TestedOn + "\n"
	if got := gpuReport(r, false); got != want {
		t.Errorf("the report is\n%s", got)
	}
	long := strings.Replace(want, "tested", "  /x/libcublasLt.so.12: found\ntested", 1)
	if got := gpuReport(r, true); got != long+"compiled kernels: kept by the driver in /cache\n" {
		t.Errorf("the long report is\n%s", got)
	}
	r.KernelCacheErr = errors.New("HOME is not set")
	if got := gpuReport(r, true); got != long+"compiled kernels: not kept, every start compiles them again: HOME is not set\n" {
		t.Errorf("the long report is\n%s", got)
	}
}

// TestCublasInReport checks that a line of embed devices gives the reason why there is no cuBLAS, and how much slower a
// GPU is without cuBLAS.
func TestCublasInReport(t *testing.T) {
	missing := cuda.Attempt{Path: "libcublasLt.so.12", Err: errors.New("libcublasLt.so.12: cannot open shared object file: No such file or directory")}
	broken := cuda.Attempt{Path: "/x/libcublasLt.so.12", Err: errors.New("/x/libcublasLt.so.12: file too short")}
	found := cuda.Attempt{Path: "/y/libcublasLt.so.12"}
	for _, c := range []struct {
		err      error
		searched []cuda.Attempt
		want     string
	}{
		{errors.New("all of them"), []cuda.Attempt{missing}, "cuBLASLt: not found: the program's own"},
		{errors.New("all of them"), []cuda.Attempt{missing, broken, missing}, "cuBLASLt: /x/libcublasLt.so.12: file too short: the program's own"},
		{cuda.ErrCublasOff, nil, "cuBLASLt: EMBED_CUBLAS=none: the program's own"},
		{errors.New("cublasLtCreate: no"), []cuda.Attempt{found}, "cuBLASLt: cublasLtCreate: no: the program's own"},
	} {
		r := cuda.Report{DriverVersion: "12.4", Devices: []cuda.Device{{}}, Cublas: cuda.Cublas{Err: c.err, Searched: c.searched}}
		text := gpuReport(r, false)
		for _, want := range []string{c.want, "made ESM-2 650M 35% slower in bf16 (embed devices --verbose"} {
			if !strings.Contains(text, want) {
				t.Errorf("%q is not in\n%s", want, text)
			}
		}
		if strings.Contains(text, "not there") || strings.Count(text, "\n") != 4 {
			t.Errorf("the report is\n%s", text)
		}
	}
}
