package hostsim_test

import (
	"flag"
	"testing"

	"seqembed/kernels"
	"seqembed/kernels/kernelstest"
)

// The float32 kernels pass the suite that every backend passes. It runs with
// sequences of up to 65 tokens: a simulated device is slow.
func TestSuiteFloat32(t *testing.T) {
	whole(t)
	path, err := program()
	start(t, path, err).Close()
	short := flag.Lookup("test.short")
	before := short.Value.String()
	if err := short.Value.Set("true"); err != nil {
		t.Fatal(err)
	}
	defer short.Value.Set(before)
	kernelstest.Run(t, func() kernels.Backend {
		return &backend{start(t, path, nil), fp32}
	})
}
