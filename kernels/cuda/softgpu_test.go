//go:build linux && (amd64 || arm64) && !static

package cuda

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ebitengine/purego"

	"seqembed/kernels"
	"seqembed/kernels/cuda/driver"
	"seqembed/kernels/cuda/gpu"
	"seqembed/kernels/cuda/softgpu"
	"seqembed/kernels/kernelstest"
	"seqembed/transformer/goldentest"
)

// committed builds the software GPU with the committed PTX when it is first called.
var committed = sync.OnceValues(softgpu.Committed)

// software is the software GPU loaded into this process.
type software struct {
	folder  string
	drv     *driver.CUDA
	cublas  *driver.CublasLt
	restart func(seed uint64)
	drop    func(kernel string, number uint32) // removes a barrier of a kernel, or shortens a wait for copies
}

// inProcess loads the software GPU once. A library that is rebuilt after it was loaded cannot be loaded again in the
// same process.
var inProcess = sync.OnceValues(func() (*software, error) {
	folder, err := committed()
	if err != nil {
		return nil, err
	}
	s := &software{folder: folder}
	library, err := driver.OpenLibrary(filepath.Join(folder, "libcuda.so.1"))
	if err != nil {
		return nil, err
	}
	lt, err := driver.OpenLibrary(filepath.Join(folder, "libcublasLt.so.13"))
	if err != nil {
		return nil, err
	}
	purego.RegisterLibFunc(&s.restart, library, "softgpu_restart")
	purego.RegisterLibFunc(&s.drop, library, "softgpu_drop")
	if s.drv, err = driver.BindCUDA(library); err == nil {
		s.cublas, err = driver.BindCublasLt(lt)
	}
	return s, err
})

// softwareGPU returns the software GPU. It skips the test in short mode. It also skips the test if there is no C++
// compiler, unless the variable CI is set.
func softwareGPU(t *testing.T) *software {
	t.Helper()
	softwareFolder(t)
	s, err := inProcess()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func softwareFolder(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("the software GPU takes part in the full test run only")
	}
	folder, err := committed()
	if errors.Is(err, softgpu.ErrNoCompiler) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return folder
}

// open resets the software GPU and opens a backend on it. seed determines the order of streams and threads. If images
// is nil, the backend uses the committed kernels. No other backend may be open.
func (s *software) open(t *testing.T, seed uint64, dtype kernels.DType, withCublas bool, images []gpu.Image) *Backend {
	t.Helper()
	s.restart(seed)
	if images == nil {
		var err error
		if images, err = embeddedImages(); err != nil {
			t.Fatal(err)
		}
	}
	find := noCublas
	if withCublas {
		find = func(int) (*driver.CublasLt, []Attempt, error) { return s.cublas, nil, nil }
	}
	b, err := open(s.drv, 0, Options{DType: dtype}, images, find)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestSoftwareGPU runs on the software GPU the tests that need a GPU. They run in four child processes, which find the
// software GPU as they would find a driver.
func TestSoftwareGPU(t *testing.T) {
	folder := softwareFolder(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var total atomic.Int64
	t.Run("in processes", func(t *testing.T) {
		for _, tests := range []string{"^TestGPU$/./^bf16", "^TestGPU$/./^fp16", "^TestGPU$/./^fp32", "^TestGPU."} {
			t.Run(tests, func(t *testing.T) {
				t.Parallel()
				child := exec.Command(self, "-test.run", tests, "-test.short", "-test.v")
				child.Env = append(os.Environ(), "LD_LIBRARY_PATH="+folder, "EMBED_REQUIRE_GPU=1")
				out, err := child.CombinedOutput()
				passed := regexp.MustCompile(`(?m)^ *--- PASS: TestGPU.*$`).FindAll(out, -1)
				if skipped := regexp.MustCompile(`--- SKIP.*`).FindAll(out, -1); len(skipped) > 0 {
					t.Errorf("skipped: %s", skipped)
				}
				if err != nil || len(passed) == 0 {
					t.Errorf("%v, %d tests passed:\n%s", err, len(passed), out)
				}
				total.Add(int64(len(passed)))
			})
		}
	})
	if n := total.Load(); n < 400 {
		t.Errorf("only %d tests passed", n)
	}
}

// mixed contains lengths of sequences, below and above the tile sizes of 64 and 128 rows.
var mixed = []int{65, 1, 129, 31, 2, 64, 33}

// jobs returns small programs that together launch every kernel.
func jobs() []kernelstest.Case {
	var list []kernelstest.Case
	add := func(name string, lengths []int, build func(b *kernelstest.Bench) kernels.Value) {
		list = append(list, kernelstest.Case{Name: name, Lengths: lengths,
			Build: func(b *kernelstest.Bench) []kernels.Value { return []kernels.Value{build(b)} }})
	}
	list = append(list, kernelstest.Case{Name: "embed", Lengths: mixed, Tokens: true, Build: func(b *kernelstest.Bench) []kernels.Value {
		o := kernels.Embed{Table: b.Table(36), Type: b.Vector(36, 1, 0), Scale: 0.88, Mask: kernelstest.Vocabulary - 1}
		return []kernels.Value{b.Stored(b.Embed(o))}
	}})
	add("norm", mixed, func(b *kernelstest.Bench) kernels.Value {
		return b.Stored(b.Norm(b.Input(100), b.Normalize(100, 1e-5)))
	})
	for name, cols := range map[string]int{"norm of 600 columns": 600, "norm of 1300 columns": 1300, "norm of wide rows": 2562} {
		add(name, []int{2, 3}, func(b *kernelstest.Bench) kernels.Value { return b.Norm(b.Input(cols), b.Normalize(cols, 1e-12)) })
	}
	add("residual", mixed, func(b *kernelstest.Bench) kernels.Value {
		return b.Linear(b.Input(140), b.Product(71, 140, kernels.Identity), b.Input(71))
	})
	add("linear, pool", mixed, func(b *kernelstest.Bench) kernels.Value {
		return b.Pool(b.Linear(b.Input(24), b.Product(40, 24, kernels.Identity), kernels.None), kernels.Range{})
	})
	for _, shape := range [][2]int{{16, 16}, {17, 33}, {136, 64}, {320, 200}, {48, 530}} {
		out, in := shape[0], shape[1]
		lengths := mixed
		if out*in > 40_000 {
			lengths = []int{1, 65, 97}
		}
		for name, then := range map[string]kernels.Activation{"linear": kernels.Identity, "linear, gelu": kernels.GELU, "linear, geglu": kernels.GEGLU} {
			add(fmt.Sprintf("%s %dx%d", name, out, in), lengths, func(b *kernelstest.Bench) kernels.Value {
				return b.Stored(b.Linear(b.Input(in), b.Product(out, in, then), kernels.None))
			})
		}
	}
	add("linear, gelu, read in both types", mixed, func(b *kernelstest.Bench) kernels.Value {
		y := b.Linear(b.Input(24), b.Product(40, 24, kernels.GELU), kernels.None)
		return b.Linear(y, b.Product(40, 40, kernels.Identity), y)
	})
	for _, d := range attentionHeads {
		const heads = 2
		scale := float32(1 / math.Sqrt(float64(d)))
		attention := func(name string, lengths []int, o kernels.Attention) {
			o.Heads = heads
			add(name, lengths, func(b *kernelstest.Bench) kernels.Value { return b.Stored(b.Attention(b.Input(3*heads*d), o)) })
		}
		attention(fmt.Sprintf("attention %d", d), mixed, kernels.Attention{Scale: scale})
		attention(fmt.Sprintf("attention %d, long", d), []int{300}, kernels.Attention{Scale: scale})
		attention(fmt.Sprintf("alibi %d", d), []int{3, 140}, kernels.Attention{Scale: scale, Slopes: []float32{0.5, 0.0625}})
		attention(fmt.Sprintf("rotary, attention %d", d), []int{65, 1, 130, 300},
			kernels.Attention{Scale: 1, Rotary: &kernels.Rotary{QScale: scale, InvFreq: frequencies(d)}})
	}
	add("attention, widen", mixed, func(b *kernelstest.Bench) kernels.Value {
		return b.Attention(b.Input(96), kernels.Attention{Heads: 2, Scale: 0.25})
	})
	return list
}

// jobResult runs a program of jobs and returns the value that it computes.
func jobResult(t *testing.T, j kernelstest.Case, b *Backend, dtype kernels.DType) ([]float32, error) {
	t.Helper()
	results, err := j.Run(t, b, dtype, j.Lengths, nil, 0)
	if err != nil {
		return nil, err
	}
	return results[0].Values, nil
}

// TestOrders checks that every kernel gives the same bits in several orders of threads, blocks and streams. It runs the
// programs of jobs: all of them with the package's own matrix products, and with cuBLAS only those in which the
// activation becomes a separate kernel.
func TestOrders(t *testing.T) {
	s := softwareGPU(t)
	for _, dtype := range []kernels.DType{kernels.FP32, kernels.BF16, kernels.FP16} {
		for _, cublas := range []bool{false, true} {
			want := map[string][]float32{}
			for seed := uint64(0); seed < 4; seed++ {
				b := s.open(t, seed, dtype, cublas, nil)
				for _, j := range jobs() {
					if cublas && !strings.HasPrefix(j.Name, "linear, g") {
						continue
					}
					got, err := jobResult(t, j, b, dtype)
					if err != nil {
						t.Fatal(err)
					}
					if want[j.Name] == nil {
						want[j.Name] = got
					}
					if at := kernelstest.Differs(want[j.Name], got); at >= 0 {
						t.Errorf("%s, %s, cuBLAS %t, order %d: value %d is %v and was %v", dtype, j.Name, cublas, seed, at, got[at], want[j.Name][at])
					}
				}
				b.Close()
			}
		}
	}
}

// TestGoldensOnTheSoftwareGPU checks that whole models on the software GPU agree with the results of their original
// PyTorch code, within error limits. It uses every operand type, with the package's own products and with cuBLAS.
func TestGoldensOnTheSoftwareGPU(t *testing.T) {
	s := softwareGPU(t)
	for _, g := range goldentest.Goldens() {
		for dtype, bars := range map[kernels.DType]goldentest.Bars{
			kernels.FP32: g.FP32, kernels.BF16: g.BF16, kernels.FP16: g.FP16} {
			for _, products := range []string{"own products", "cuBLAS"} {
				t.Run(g.Model+"/"+dtype.String()+"/"+products, func(t *testing.T) {
					longest := 0
					if g.Model == "dnabert-s-2l" && products == "own products" {
						longest = 24 // the wide products of this model take half a minute for all records
					}
					b := s.open(t, 0, dtype, products == "cuBLAS", nil)
					defer b.Close()
					g.Compare(t, b, bars, longest)
				})
			}
		}
	}
}

// mutant is a kernel with one mistake: a barrier has no effect, a wait for copies is too short, or instructions are
// changed.
type mutant struct {
	kernel  string
	dropped int    // number of the barrier without effect or of the wait that is too short, or 0
	text    string // changed PTX of this kernel alone; if it is empty, the committed kernel runs
	what    string
	jobs    []string // names of programs, at least one of which must notice the mistake
	dtype   kernels.DType
	same    bool // the text is unchanged: no job may notice anything
}

// mutants returns the mutants of a kernel in a PTX file. In each mutant one barrier has no effect, one wait for copies
// is too short, or all additions of float32 are subtractions. The last entry is the unchanged kernel on its own. The
// argument jobs has names of programs that the function jobs returns; at least one of them must notice each mutant.
func mutants(t *testing.T, file, kernel string, dtype kernels.DType, jobs ...string) (list []mutant) {
	t.Helper()
	all, err := ptxFiles.ReadFile("ptx/" + file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(all)
	head := text[:strings.Index(text, ".visible .entry")]
	body := regexp.MustCompile(`(?s)\.visible \.entry ` + kernel + `\(.*?\n\}\n`).FindString(text)
	if body == "" {
		t.Fatalf("%s has no %s", file, kernel)
	}
	for i, wait := range regexp.MustCompile(`bar(\.warp)?\.sync|cp\.async\.wait_group\s+\d+`).FindAllString(body, -1) {
		list = append(list, mutant{kernel: kernel, dropped: i + 1, what: fmt.Sprintf("%s: without wait %d, %s", kernel, i+1, wait),
			jobs: jobs, dtype: dtype})
	}
	differences := strings.ReplaceAll(body, "add.f32", "sub.f32")
	return append(list,
		mutant{kernel: kernel, text: head + differences, what: kernel + ": with differences for sums", jobs: jobs, dtype: dtype},
		mutant{kernel: kernel, text: head + body, what: kernel + ": as it is", jobs: jobs, dtype: dtype, same: true})
}

// TestMutantsAreFound checks that each mutant, a kernel with a mistake, changes a result or returns an error in one of
// the programs of jobs. So each barrier and each wait of these kernels, except one of pool, is both needed and tested.
func TestMutantsAreFound(t *testing.T) {
	s := softwareGPU(t)
	list := slices.Concat(
		mutants(t, "gemm_half.ptx", "gemm_bf16", kernels.BF16, "linear 136x64", "linear 48x530"),
		mutants(t, "gemm_half.ptx", "gemm_geglu_fp16", kernels.FP16, "linear, geglu 136x64", "linear, geglu 48x530"),
		mutants(t, "gemm_fp32.ptx", "gemm_fp32", kernels.FP32, "linear 136x64", "linear 48x530", "residual"),
		mutants(t, "attention_half.ptx", "attention_32_fp16", kernels.FP16, "attention 32", "attention 32, long"),
		mutants(t, "attention_rotary_half.ptx", "attention_rotary_64_bf16", kernels.BF16, "rotary, attention 64"),
		mutants(t, "attention_fp32.ptx", "attention_32_fp32", kernels.FP32, "attention 32", "attention 32, long"),
		mutants(t, "layernorm.ptx", "layernorm_8192_bf16", kernels.BF16, "norm of wide rows"),
		mutants(t, "pool.ptx", "pool", kernels.BF16, "linear, pool"),
	)
	// The second barrier of pool matters only if a block processes several sequences, in batches of more than 65,535
	// sequences. No job has so many, so none can notice that it is missing.
	list = slices.DeleteFunc(list, func(m mutant) bool { return m.kernel == "pool" && m.dropped == 2 })
	var texts []string
	for _, m := range list {
		if m.text != "" {
			texts = append(texts, m.text)
		}
	}
	if err := softgpu.Build(s.folder, texts...); err != nil {
		t.Fatal(err)
	}
	right := map[string][]float32{} // results of the committed kernels, by job and type
	for _, m := range list {
		switch found := s.notices(t, m, right); {
		case !found && !m.same:
			t.Errorf("%s gives the same results for %q", m.what, m.jobs)
		case found && m.same:
			t.Errorf("%s gives other results, or an error, for one of %q", m.what, m.jobs)
		}
	}
}

// notices runs each of the mutant's jobs up to four times, each time with another order of streams and threads. It
// reports whether a run ends with an error or with a result that differs from that of the committed kernel. It looks up
// the result of the committed kernel in the map right, and first computes it if the map does not have it.
func (s *software) notices(t *testing.T, m mutant, right map[string][]float32) bool {
	t.Helper()
	var images []gpu.Image
	if m.text != "" {
		committed, err := embeddedImages()
		if err != nil {
			t.Fatal(err)
		}
		images = slices.Insert(slices.Clone(committed), 0, // the backend uses the first image that contains the kernel
			gpu.Image{Name: "mutant", ISA: committed[0].ISA, Kernels: []string{m.kernel}, Text: func() ([]byte, error) { return []byte(m.text + "\x00"), nil }})
	}
	defer s.drop(m.kernel, 0)
	for _, j := range jobs() {
		if !slices.Contains(m.jobs, j.Name) {
			continue
		}
		key := fmt.Sprint(j.Name, m.dtype)
		if right[key] == nil {
			s.drop(m.kernel, 0)
			b := s.open(t, 0, m.dtype, false, nil)
			got, err := jobResult(t, j, b, m.dtype)
			b.Close()
			if err != nil {
				t.Fatal(err)
			}
			right[key] = got
		}
		s.drop(m.kernel, uint32(m.dropped))
		for seed := range uint64(4) {
			b := s.open(t, seed, m.dtype, false, images)
			got, err := jobResult(t, j, b, m.dtype)
			b.Close()
			var refused *driver.Error
			if errors.As(err, &refused) && strings.Contains(refused.Op, "cuModule") {
				t.Fatal(err)
			}
			if err != nil || kernelstest.Differs(right[key], got) >= 0 {
				return true
			}
		}
	}
	return false
}

// passes runs six batches and returns the results. It starts batch n+2 before it waits for batch n. The program itself
// starts only batch n+1 before it waits for batch n, but in that way a missing event could go unnoticed.
func passes(t *testing.T, b *Backend) ([][]float32, error) {
	t.Helper()
	n := newNet(t, b)
	defer n.model.Close()
	x := n.tokens(32)
	y := n.Linear(n.norm(x), kernels.Linear{W: n.load(kernels.Projection, 2, 0.2, 32, 32)}, x)
	n.Output(n.Pool(y, kernels.Range{}))
	r, err := b.Compile(n.Program, kernels.Limits{Tokens: 500, Sequences: 8})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	rng := rand.New(rand.NewPCG(4, 4))
	var results [][]float32
	var waits []func() error
	for range 6 {
		var batch kernels.Batch
		for range 1 + rng.IntN(6) {
			ids := make([]int32, 1+rng.IntN(80))
			for i := range ids {
				ids[i] = int32(rng.IntN(11))
			}
			batch.Append(ids)
		}
		dst, wait := n.start(r, batch)
		results, waits = append(results, dst...), append(waits, wait)
		if n := len(waits); n > 2 {
			// Work runs only while the host waits, so a seed always gives the same order.
			if err := waits[n-3](); err != nil {
				return nil, err
			}
		}
	}
	for _, wait := range waits[len(waits)-2:] {
		if err := wait(); err != nil {
			return nil, err
		}
	}
	return results, nil
}

// TestMissingWaitsAreFound checks that results do not depend on the order of the streams. If any one of the waits
// between streams is removed, there must be an order that changes the results, except for two waits that have no
// earlier batch to wait for.
func TestMissingWaitsAreFound(t *testing.T) {
	s := softwareGPU(t)
	run := func(seed uint64, without int) ([][]float32, int, error) {
		waits := 0
		whole, drv := s.drv, *s.drv
		drv.StreamWaitEvent = func(stream, event driver.Handle, flags uint32) driver.Result {
			if waits++; waits == without {
				return 0
			}
			return whole.StreamWaitEvent(stream, event, flags)
		}
		s.drv = &drv
		defer func() { s.drv = whole }()
		b := s.open(t, seed, kernels.BF16, false, nil)
		defer b.Close()
		got, err := passes(t, b)
		return got, waits, err
	}
	same := func(a, b [][]float32) bool { return slices.EqualFunc(a, b, slices.Equal) }
	want, waits, err := run(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	const seeds = 24 // enough orders, because a missing wait may show in only a few of them
	for seed := uint64(1); seed < seeds; seed++ {
		if got, _, err := run(seed, 0); err != nil || !same(got, want) {
			t.Fatalf("order %d: %v, or another result", seed, err)
		}
	}
	var spared []int
	for without := 1; without <= waits; without++ {
		found := false
		for seed := uint64(1); seed < seeds && !found; seed++ {
			got, _, err := run(seed, without)
			found = err != nil || !same(got, want)
		}
		if !found {
			spared = append(spared, without)
		}
	}
	// The first two batches wait until earlier batches have used their tables. There are no earlier batches, so these
	// two waits are not needed.
	if waits < 20 || !slices.Equal(spared, []int{1, 4}) {
		t.Errorf("waits %v of %d can go, and no order in %d gives another result; 1 and 4 can be spared", spared, waits, seeds-1)
	}
}

// TestContractHasJobs checks that the programs of jobs launch every kernel that the variable contracts lists. It runs
// them on the fake device, which only records the launches.
func TestContractHasJobs(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine, and slow under the race detector and on emulators")
	}
	missing := maps.Clone(kernelSpecs())
	for _, dtype := range operandTypes {
		for _, cublas := range []bool{false, true} {
			f := newFake(t)
			f.idle = true
			find := noCublas
			if cublas {
				find = newFakeCublas(f).find
			}
			b := openFake(t, f, dtype, find)
			for _, j := range jobs() {
				if _, err := jobResult(t, j, b, dtype); err != nil {
					t.Fatal(err)
				}
			}
			b.Close()
			for _, name := range f.launched {
				delete(missing, name)
			}
		}
	}
	if len(missing) > 0 {
		t.Errorf("no job launches %v", slices.Sorted(maps.Keys(missing)))
	}
}
