package main

import (
	"strings"
	"testing"

	"seqembed/kernels"
	"seqembed/kernels/cpu"
)

// portableCPU is a fake CPU backend. If portable is set, it reports that it computes only with portable kernels, which
// are written in Go without assembly.
type portableCPU struct {
	kernels.Backend
	portable bool
}

func (p portableCPU) Name() string   { return "cpu test" }
func (p portableCPU) Portable() bool { return p.portable }

// TestPortableKernelsAreWarnedOf checks that there is a warning if only portable kernels compute, and no warning if the
// CPU has kernels in assembly.
func TestPortableKernelsAreWarnedOf(t *testing.T) {
	for _, portable := range []bool{true, false} {
		var out shared
		log, err := newLog(&settings{logFormat: "text"}, &out, false)
		if err != nil {
			t.Fatal(err)
		}
		warnPortable(log, portableCPU{portable: portable})
		if warned := strings.Contains(out.String(), "WARN  no kernels in assembly"); warned != portable {
			t.Errorf("portable %v: %q", portable, out.String())
		}
	}
	// With the real backend, the warning depends on the CPU of this machine and on the build.
	workspace(t)
	write(t, "p.faa", ">a\nMKV\n")
	r := embed(t, "--esm-model", tiny, "-o", "out", "p.faa").wantCode(0)
	b := cpu.New(1)
	defer b.Close()
	if warned := strings.Contains(r.stderr, "no kernels in assembly"); warned != b.Portable() || warned != strings.Contains(b.Name(), "portable") {
		t.Errorf("%s, portable %v: the log says\n%s", b.Name(), b.Portable(), r.stderr)
	}
}
