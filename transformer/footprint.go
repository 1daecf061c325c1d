package transformer

import "seqembed/kernels"

// Footprint is what a forward pass keeps for each token of a batch: columns of
// activations by kind, summed over its buffers, each rounded up to 8. A buffer
// of both kinds counts in both.
type Footprint struct {
	Residual, Operand int
}

// FootprintOf counts the buffers of a model's forward pass. Pooled rows, of
// which there is at most one for three tokens, are left out.
func FootprintOf(m Model) Footprint {
	c := &counter{}
	m.newPass(c)
	return c.Footprint
}

// counter is a stream that allocates nothing. A pass allocates when it is
// made, and calls nothing else before forward.
type counter struct {
	kernels.Stream
	Footprint
}

func (c *counter) Tokens(cols int, k kernels.Kind) kernels.Buffer {
	rounded := (cols + 7) &^ 7
	if k&kernels.Residual != 0 {
		c.Residual += rounded
	}
	if k&kernels.Operand != 0 {
		c.Operand += rounded
	}
	return nil
}

func (c *counter) Reuse(kernels.Buffer, int) kernels.Buffer { return nil }
