package cpu

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"seqembed/kernels"
)

// TestMemoryLimits checks, for both versions of Linux control groups, that the limit of the process's group, or of a
// group above it, counts, and that page cache does not count as used memory.
func TestMemoryLimits(t *testing.T) {
	const gb = 1 << 30
	for name, tt := range map[string]struct {
		files map[string]string
		bytes int64
		by    string
	}{
		"unknown":      {nil, math.MaxInt64, ""},
		"machine":      {map[string]string{"proc/meminfo": "MemTotal: 9 kB\nMemAvailable:    3145728 kB\n"}, 3 * gb, "the free memory of the machine"},
		"version 2":    {groups("0::/system.slice/job1\n", "memory.max", "memory.current", "system.slice/job1", "2147483648", "1073741824"), gb, "the control group /sys/fs/cgroup/system.slice/job1"},
		"its parent":   {groups("0::/slurm/job1/step0\n", "memory.max", "memory.current", "slurm", "2147483648", "1073741824"), gb, "the control group /sys/fs/cgroup/slurm"},
		"its root":     {groups("0::/\n", "memory.max", "memory.current", "", "2147483648", "1073741824"), gb, "the control group /sys/fs/cgroup"},
		"in container": {groups("0::/../docker/abc\n", "memory.max", "memory.current", "", "2147483648", "1073741824"), gb, "the control group /sys/fs/cgroup"},
		"no limit":     {groups("0::/a\n", "memory.max", "memory.current", "a", "max", "1073741824"), math.MaxInt64, ""},
		"full":         {groups("0::/a\n", "memory.max", "memory.current", "a", "1073741824", "1073741825"), 0, "the control group /sys/fs/cgroup/a"},
		"another":      {groups("0::/ab\n", "memory.max", "memory.current", "a", "2147483648", "1073741824"), math.MaxInt64, ""},
		"version 1": {groups("9:cpu:/x\n4:hugetlb,memory:/slurm/uid_0/job_1\n0::/\n", "memory.limit_in_bytes", "memory.usage_in_bytes", "memory/slurm/uid_0", "2147483648", "1073741824"),
			gb, "the control group /sys/fs/cgroup/memory/slurm/uid_0"},
		"page cache": {with(groups("0::/a\n", "memory.max", "memory.current", "a", "2147483648", "2147483648"), "sys/fs/cgroup/a/memory.stat",
			"anon 5\nfile 1073741830\ninactive_file 536870912\nactive_file 536870912\n"), gb, "the control group /sys/fs/cgroup/a"},
		"page cache of version 1": {with(groups("4:memory:/a\n", "memory.limit_in_bytes", "memory.usage_in_bytes", "memory/a", "2147483648", "2147483648"), "sys/fs/cgroup/memory/a/memory.stat",
			"inactive_file 1\nactive_file 2\ntotal_inactive_file 1073741824\ntotal_active_file 0\n"), gb, "the control group /sys/fs/cgroup/memory/a"},
	} {
		t.Run(name, func(t *testing.T) {
			l := memoryLimits{t.TempDir(), math.MaxInt64, ""}
			for file, content := range tt.files {
				file = filepath.Join(l.root, file)
				if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(content), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			l.machine()
			l.controlGroups()
			if l.bytes != tt.bytes || l.by != tt.by {
				t.Errorf("%d bytes of %q, want %d of %q", l.bytes, l.by, tt.bytes, tt.by)
			}
		})
	}
}

// groups returns the files that describe a process in control groups, one of which has a limit.
func groups(process, limitName, usedName, group, limit, used string) map[string]string {
	return map[string]string{"proc/self/cgroup": process, "sys/fs/cgroup/" + group + "/" + limitName: limit + "\n",
		"sys/fs/cgroup/" + group + "/" + usedName: used + "\n"}
}

func with(files map[string]string, name, content string) map[string]string {
	files[name] = content
	return files
}

// TestGrow checks that an arena that grows an allocation frees the memory that the allocation used before, and that it
// refuses to exceed the limit of the arena.
func TestGrow(t *testing.T) {
	a := arena{room: 8 << 20, by: "a test"}
	defer a.free()
	var values []float32
	for _, n := range []int{1 << 20, 1 << 19, 3 << 19} {
		var err error
		if values, err = a.grow(values, n); err != nil || len(values) < n {
			t.Fatalf("%d values: %d, %v", n, len(values), err)
		}
		values[len(values)-1] = 1
	}
	if len(values) != 3<<19 || len(a.mapped) != 1 || a.room != 2<<20 {
		t.Errorf("%d values in %d blocks, %d bytes are left", len(values), len(a.mapped), a.room)
	}
	_, err := a.grow(values, 3<<20)
	if !errors.Is(err, kernels.ErrOutOfMemory) || !strings.Contains(err.Error(), "12 MB needed, 8 MB left of a test") {
		t.Errorf("over the limit: %v", err)
	}
	if values, err = a.grow(nil, 1<<20); err != nil || len(values) != 1<<20 {
		t.Errorf("afterwards: %d, %v", len(values), err)
	}
}

// TestMemoryTakenByOthers checks that an allocation fails if it needs more than is available at that moment, even if
// more was available at the first allocation of the arena.
func TestMemoryTakenByOthers(t *testing.T) {
	free, by := Available()
	if free == math.MaxInt64 {
		t.Skip("the available memory of this system is unknown")
	}
	a := arena{room: math.MaxInt64, by: "earlier memory"}
	if _, err := a.floats(int(free)); !errors.Is(err, kernels.ErrOutOfMemory) || !strings.Contains(err.Error(), "left of "+by) {
		t.Errorf("%v, want one of %s", err, by)
	}
	if a.room != math.MaxInt64 {
		t.Errorf("%d bytes are left", a.room)
	}
}

// TestAttentionOutOfMemory checks that a batch whose attention does not fit the memory gives an error, and that the
// next batch runs.
func TestAttentionOutOfMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("a long sequence takes ten seconds under emulation")
	}
	b := New(2)
	defer b.Close()
	m := b.NewModel()
	defer m.Close()
	table, err := m.Load(kernels.Lookup, randomSource{[]int{4, 3 * 16}})
	if err != nil {
		t.Fatal(err)
	}
	var p kernels.Program
	p.Output(p.Attention(p.Embed(kernels.Embed{Table: table, Scale: 1, Mask: kernels.NoMask}), kernels.Attention{Heads: 1, Scale: 1}))
	compiled, err := b.Compile(&p, kernels.Limits{Tokens: 5600, Sequences: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer compiled.Close()
	run := func(tokens int) error {
		var batch kernels.Batch
		batch.Append(make([]int32, tokens))
		return compiled.Start(batch, [][]float32{make([]float32, tokens*16)})()
	}
	compiled.(*runner).memory.room = 2 << 20
	if err := run(5600); !errors.Is(err, kernels.ErrOutOfMemory) || !strings.Contains(err.Error(), "attention of 5600 tokens") {
		t.Errorf("a long batch: %v", err)
	}
	if err := run(100); err != nil {
		t.Errorf("a short one: %v", err)
	}
	compiled.(*runner).memory.room = 1 << 30
	if err := run(5600); err != nil {
		t.Errorf("with more memory: %v", err)
	}
}
