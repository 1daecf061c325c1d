package cpu

import (
	"fmt"
	"testing"

	"seqembed/kernels"
)

// TestFused checks that an activation that is applied block by block gives the same bits as one that is applied to the
// whole product in memory. The test uses blocks that are not full, and a width, 24, that is not a multiple of the width
// of a panel.
func TestFused(t *testing.T) {
	withEachVariant(t, func(t *testing.T, v *variant) {
		for _, rows := range []int{1, 13, 97} {
			for _, cols := range []int{24, 400} {
				for _, then := range kernels.Activations[1:] {
					t.Run(fmt.Sprintf("%s/%dx%d", then, rows, cols), func(t *testing.T) {
						source := func(rows int) kernels.Source { return randomSource{[]int{rows, 389}} }
						backend := func() *Backend { return newBackend(2, v, float32s) }
						got := projected(t, backend(), then.String(), rows, [2]int{cols, 389}, source)
						apply, gate, err := v.activation(then)
						if err != nil {
							t.Fatal(err)
						}
						if apply != nil {
							want := projected(t, backend(), "linear", rows, [2]int{cols, 389}, source)
							apply(want)
							sameBits(t, then.String(), got, want)
							return
						}
						z := projected(t, backend(), "halves", rows, [2]int{cols, 389}, source)
						want := make([]float32, rows*cols)
						for r := range rows {
							in := z[2*r*cols:]
							gate(want[r*cols:][:cols], in, in[cols:])
						}
						sameBits(t, then.String(), got, want)
					})
				}
			}
		}
	})
}
