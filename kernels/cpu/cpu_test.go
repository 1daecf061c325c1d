package cpu

import (
	"testing"

	"seqembed/kernels"
	"seqembed/kernels/kernelstest"
)

func TestConformance(t *testing.T) {
	kernelstest.Run(t, func() kernels.Backend { return New(3) })
}
