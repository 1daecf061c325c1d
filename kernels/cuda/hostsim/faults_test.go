package hostsim_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"seqembed/kernels/cuda/hostsim"
)

// launch runs a kernel of testdata/faults.cu on 512 counted floats.
func launch(t *testing.T, path, kernel string, threads int, order uint64) (out [512]float32, err error) {
	t.Helper()
	dev := start(t, path, nil)
	defer dev.Close()
	if err := dev.SetOrder(order); err != nil {
		t.Fatal(err)
	}
	at, err := dev.Alloc(4 * len(out))
	if err != nil {
		t.Fatal(err)
	}
	bytes := make([]byte, 0, 4*len(out))
	for i := range out {
		bytes = binary.LittleEndian.AppendUint32(bytes, math.Float32bits(float32(i)))
	}
	if err := dev.Write(at, bytes); err != nil {
		t.Fatal(err)
	}
	if err := dev.Launch(kernel, [3]int{1, 1, 1}, threads, 1024, at); err != nil {
		return out, err
	}
	if err := dev.Read(bytes, at); err != nil {
		t.Fatal(err)
	}
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(bytes[4*i:]))
	}
	return out, nil
}

// The simulator finds what it is there to find: a kernel without its barrier
// gives another result in one of four orders at least, the right kernel in
// none.
func TestMissingSynchronisationIsFound(t *testing.T) {
	whole(t)
	path, err := hostsim.Build(t.TempDir(), "../src", "testdata/faults.cu")
	start(t, path, err).Close()
	for _, c := range []struct {
		right, wrong string
		threads      int
		want         func(i int) int
	}{
		{"rotate_right", "rotate_without_barrier", 64, func(i int) int { return (i + 33) % 64 }},
		{"reverse_right", "reverse_without_barrier", 32, func(i int) int { return 31 - i }},
		{"stage_right", "stage_without_wait", 32, func(i int) int { return 4*(31-i/4) + i%4 }},
		{"stage_right", "stage_without_barrier", 32, func(i int) int { return 4*(31-i/4) + i%4 }},
		{"reuse_right", "reuse_too_early", 64, func(i int) int { return 4*(63-i/4) + i%4 }},
	} {
		wrongs := 0
		for order := range uint64(4) {
			for _, kernel := range []string{c.right, c.wrong} {
				out, err := launch(t, path, kernel, c.threads, order)
				if err != nil {
					t.Fatalf("%s: %v", kernel, err)
				}
				differ := false
				for i := range c.threads {
					differ = differ || out[i] != float32(c.want(i))
				}
				switch {
				case differ && kernel == c.right:
					t.Errorf("%s in order %d gives %v", kernel, order, out[:c.threads])
				case differ:
					wrongs++
				}
			}
		}
		if wrongs == 0 {
			t.Errorf("%s gives the right result in every order", c.wrong)
		}
	}
	for kernel, says := range map[string]string{
		"leave_copies":        "has not waited for",
		"copy_beyond":         "outside every allocation",
		"read_beyond":         "outside global or shared memory",
		"write_before":        "beside an allocation",
		"write_beyond_shared": "outside global or shared memory",
		"misaligned":          "misaligned",
		"half_at_barrier":     "hangs",
		"half_in_shuffle":     "hangs",
		"absent":              "no kernel is called absent",
	} {
		threads := 32
		if kernel == "half_at_barrier" {
			threads = 64
		}
		if _, err := launch(t, path, kernel, threads, 2); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s gives the error %v, want one that says %q", kernel, err, says)
		}
	}
}

// A mutation takes one line out of a kernel file.
type mutation struct {
	file     string
	from, to string
	jobs     []string // of the operand tests: each has to notice, or one of those that | joins
	operand  operand
}

// Each barrier and wait of the kernels that use shared memory is needed, and
// the simulation notices when one is gone.
func TestMutatedKernelsAreFound(t *testing.T) {
	whole(t)
	clean, err := program()
	start(t, clean, err).Close()
	half, single := []string{"linear/136x64|linear/48x530"}, []string{"attention/32", "rotary, attention/32"}
	const turnKeys = "        if constexpr (rotary) turn_keys<T, d>(keys + stage * Head<d>::stage, turns);\n"
	var turned []string
	for _, d := range []int{16, 24, 32, 64, 128} {
		turned = append(turned, fmt.Sprintf("rotary, attention/%d", d))
	}
	for i, set := range [][]mutation{
		{
			{"gemm_half.cu", "__syncthreads();         // all see", "// all see", half, bf16},
			{"gemm_fp32.cu", "__syncthreads(); // all see", "// all see", half, fp32},
			{"attention_half.cuh", "__syncthreads(); // before", "// before", single, fp16},
			{"attention_fp32.cuh", "__syncwarp(); // a row's", "// a row's", single, fp32},
			{"layernorm.cu", "    __syncthreads();\n", "", []string{"norm/wide"}, bf16},
			{"pool.cu", "        __syncthreads();\n        if", "        if", []string{"linear, pool"}, bf16},
		},
		{
			{"gemm_half.cu", "copy_wait<stages - 2>(); // for", "copy_wait<stages - 1>(); // for", half, fp16},
			{"gemm_fp32.cu", "copy_wait<0>", "copy_wait<1>", half, fp32},
			{"attention_half.cuh", "copy_wait<1>", "copy_wait<2>", single, bf16},
			{"attention_fp32.cuh", "__syncthreads(); // all are done", "// all are done", single, fp32},
		},
		{
			{"gemm_half.cu", "__syncthreads(); // rows come", "// rows come", half, fp16},
			{"attention_half.cuh", "__syncthreads(); // all see", "// all see", single, bf16},
			{"attention_fp32.cuh", "2, base, length, heads);\n        __syncthreads();", "2, base, length, heads);", single, fp32},
		},
		{
			{"attention_half.cuh", turnKeys + "        __syncthreads(); // all see the keys and values\n",
				"        __syncthreads();\n" + turnKeys, turned, fp16},
		},
	} {
		t.Run(fmt.Sprintf("set %d", i), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			var files []string // of the mutants
			for _, m := range set {
				text, err := os.ReadFile(filepath.Join("../src", m.file))
				if err != nil {
					t.Fatal(err)
				}
				if strings.Count(string(text), m.from) != 1 {
					t.Fatalf("%s has %q %d times", m.file, m.from, strings.Count(string(text), m.from))
				}
				path := filepath.Join(dir, m.file)
				if err := os.WriteFile(path, []byte(strings.Replace(string(text), m.from, m.to, 1)), 0o644); err != nil {
					t.Fatal(err)
				}
				files = append(files, compiled(t, dir, path)...)
			}
			mutated, err := hostsim.Build(dir, "../src", append(files, "../src/embed.cu")...)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range set {
				for _, name := range m.jobs {
					if !m.noticed(t, clean, mutated, strings.Split(name, "|")) {
						t.Errorf("%s without %q gives the same results for %s", m.file, m.from, name)
					}
				}
			}
		})
	}
}

// compiled lists what a mutated file is compiled as: itself, or copies beside
// it of the kernel files that include it.
func compiled(t *testing.T, dir, path string) []string {
	t.Helper()
	if filepath.Ext(path) == ".cu" {
		return []string{path}
	}
	kernels, err := filepath.Glob("../src/*.cu")
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, k := range kernels {
		text, err := os.ReadFile(k)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), `#include "`+filepath.Base(path)+`"`) {
			continue
		}
		beside := filepath.Join(dir, filepath.Base(k))
		if err := os.WriteFile(beside, text, 0o644); err != nil {
			t.Fatal(err)
		}
		list = append(list, beside)
	}
	return list
}

// noticed reports whether one of the jobs gives another result, or an error,
// in one of four orders.
func (m mutation) noticed(t *testing.T, clean, mutated string, names []string) bool {
	for _, j := range jobs() {
		for _, name := range names {
			if j.name != name {
				continue
			}
			b := &backend{start(t, clean, nil), m.operand}
			want, _, _ := j.result(t, b, m.operand, j.lens, count(len(j.lens)))
			b.Close()
			for order := range uint64(4) {
				b := &backend{start(t, mutated, nil), m.operand}
				if err := b.dev.SetOrder(order); err != nil {
					t.Fatal(err)
				}
				got, _, _, err := j.try(t, b, m.operand, j.lens, count(len(j.lens)))
				b.Close()
				if err != nil && strings.Contains(err.Error(), "no kernel") {
					t.Fatal(err)
				}
				if err != nil || slices.ContainsFunc(count(len(want)), func(i int) bool {
					return math.Float32bits(want[i]) != math.Float32bits(got[i])
				}) {
					return true
				}
			}
		}
	}
	return false
}

// The simulator, the compiled PTX and the table of src/README.md know the
// same kernels.
func TestKernelsAreTheSameEverywhere(t *testing.T) {
	whole(t)
	path, err := program()
	dev := start(t, path, err)
	defer dev.Close()
	simulated, err := dev.Kernels()
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := os.ReadFile("../ptx/MANIFEST")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../src/README.md")
	if err != nil {
		t.Fatal(err)
	}
	compiled := map[string]bool{}
	for line := range strings.Lines(string(manifest)) {
		if fields := strings.Fields(line); fields[0] == "kernel" {
			compiled[fields[1]] = true
		}
	}
	digits := regexp.MustCompile(`_[0-9]+_`)
	for name := range compiled {
		if simulated[name] == 0 {
			t.Errorf("%s was compiled and is not simulated", name)
		}
		general := digits.ReplaceAllString(name, "_<d>_")
		family := general[:max(0, strings.LastIndex(general, "_"))] + "_<T>"
		if !strings.Contains(string(readme), "`"+general+"`") && !strings.Contains(string(readme), "`"+family+"`") {
			t.Errorf("src/README.md does not describe %s", name)
		}
	}
	for name := range simulated {
		if !compiled[name] {
			t.Errorf("%s is simulated and was not compiled", name)
		}
	}
}
