package cuda

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"seqembed/kernels"
	"seqembed/kernels/cuda/gpu"
)

//go:generate go test . -run ^TestContractInREADME$ -update

var update = flag.Bool("update", false, "write the table of kernels into src/README.md")

// parameter is a parameter of a kernel, parsed from contract.params.
type parameter struct {
	declaration, name, remark string
	pointer                   bool
}

// bytes returns the size of the parameter in bytes.
func (p parameter) bytes() int {
	if p.pointer {
		return 8
	}
	return 4
}

var declaration = regexp.MustCompile(`^((?:const )?\w+ (\*?)(\w+))(.*)$`)

// parameters parses contract.params.
func (c contract) parameters() (list []parameter) {
	for _, text := range strings.Split(c.params, "; ") {
		m := declaration.FindStringSubmatch(text)
		list = append(list, parameter{m[1], m[3], m[4], m[2] != ""})
	}
	return list
}

// kernelParameters returns the parameters of each kernel by its name.
var kernelParameters = sync.OnceValue(func() map[string][]parameter {
	all := map[string][]parameter{}
	for _, c := range contracts {
		for name := range expand([]contract{c}) {
			all[name] = c.parameters()
		}
	}
	return all
})

// TestContractInREADME checks that the table of kernels in src/README.md agrees with the variable contracts. With the
// flag -update it writes the table instead.
func TestContractInREADME(t *testing.T) {
	const file, begin, end = "src/README.md", "| kernel |", "\n\n"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut(string(text), begin)
	old, tail, _ := strings.Cut(rest, end)
	want := table()
	if begin+old == want {
		return
	}
	if !*update {
		t.Fatalf("the table in %s is not that of contract.go; go generate writes it anew", file)
	}
	if err := os.WriteFile(file, []byte(head+want+end+tail), 0o644); err != nil {
		t.Fatal(err)
	}
}

// table returns the variable contracts as a Markdown table.
func table() string {
	lines := []string{"| kernel | parameters | grid | block | dynamic shared |", "| --- | --- | --- | --- | --- |"}
	for i, c := range contracts {
		names := "`" + strings.Join(strings.Fields(c.names), "`, `") + "`"
		params := "the same"
		if i == 0 || contracts[i-1].params != c.params {
			var list []string
			for _, p := range c.parameters() {
				list = append(list, "`"+p.declaration+"`"+p.remark)
			}
			params = strings.Join(list, ", ")
		}
		shared := "0"
		switch {
		case c.shared == nil:
		case strings.Contains(c.names, "<d>"):
			var bytes, sizes []string
			for _, d := range attentionHeads {
				bytes, sizes = append(bytes, grouped(c.shared(d))), append(sizes, fmt.Sprint(d))
			}
			shared = fmt.Sprintf("%s for d = %s", strings.Join(bytes, " · "), strings.Join(sizes, " · "))
		default:
			shared = grouped(c.shared(0))
		}
		lines = append(lines, fmt.Sprintf("| %s | %s | %s | %d | %s |", names, params, c.tile, c.block, shared))
	}
	return strings.Join(lines, "\n")
}

// String returns the grid of a kernel as a formula of the dimensions that its tiles divide.
func (t tile) String() string {
	ceil := func(what string, by int) string {
		if by == 1 {
			return what
		}
		return fmt.Sprintf("ceil(%s, %d)", what, by)
	}
	x, y := ceil(t.by, t.cols), fmt.Sprintf("min(%s, %d)", ceil(t.of, t.rows), maxGridY)
	if t.cols == 0 {
		x, y = ceil(t.of, t.rows), "1"
	} else if t.flat {
		x, y = ceil(t.of, t.rows)+" · "+x, "1"
	}
	return fmt.Sprintf("(%s, %s, 1)", x, y)
}

// grouped formats a number below a million with a comma between the thousands.
func grouped(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%d,%03d", n/1000, n%1000)
}

// TestContractOfThePTX checks that the variable contracts agrees with the compiled kernels: their names, the number and
// sizes of their parameters, and the threads of a block. It also checks that a driver for CUDA 12.4 can load the PTX.
func TestContractOfThePTX(t *testing.T) {
	images, err := embeddedImages()
	if err != nil {
		t.Fatal(err)
	}
	entry := regexp.MustCompile(`(?s)\.visible \.entry (\w+)\(\n(.*?)\n\)\n\.maxntid (\d+), 1, 1\n`)
	size := regexp.MustCompile(`\.param \.\w(\d+) `)
	compiled := map[string]bool{}
	for _, i := range images {
		text, err := i.Text()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range entry.FindAllStringSubmatch(string(text), -1) {
			name := m[1]
			compiled[name] = true
			spec, ok := kernelSpecs()[name]
			if !ok || !slices.Contains(i.Kernels, name) {
				t.Errorf("%s has %s, which is in no contract", i.Name, name)
				continue
			}
			var is, should []int
			for _, p := range size.FindAllStringSubmatch(m[2], -1) {
				bits, _ := strconv.Atoi(p[1])
				is = append(is, bits/8)
			}
			for _, p := range kernelParameters()[name] {
				should = append(should, p.bytes())
			}
			if !slices.Equal(is, should) {
				t.Errorf("%s takes parameters of %d bytes, and its contract says %d", name, is, should)
			}
			if m[3] != fmt.Sprint(spec.block) {
				t.Errorf("%s has blocks of %s threads, and its contract says %d", name, m[3], spec.block)
			}
		}
	}
	for name := range kernelSpecs() {
		if !compiled[name] {
			t.Errorf("no module has %s", name)
		}
	}
	if err := gpu.CheckDriver(12040, images); err != nil {
		t.Error(err)
	}
}

// TestLaunchCountsParameters checks that a launch with too few parameters is an error.
func TestLaunchCountsParameters(t *testing.T) {
	f := newFake(t)
	b := openFake(t, f, kernels.BF16, noCublas)
	defer b.Close()
	err := b.do(func(c *gpu.Context) {
		r := &runner{backend: b}
		s := submission{runner: r, Context: c}
		s.launch((&compiler{Context: c, runner: r}).kernel("pool"), 1, 1, 0, 0, 0, 0)
	})
	if err == nil || err.Error() != "pool is given 4 parameters and takes 5" || len(f.launched) > 0 {
		t.Errorf("%v, and the launches %v", err, f.launched)
	}
}
