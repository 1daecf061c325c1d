package transformer

import "seqembed/kernels"

// Footprint is what a forward pass keeps for each token of a batch: columns of
// activations by kind, summed over its buffers, each rounded up to 8. A buffer
// of both kinds counts in both.
type Footprint struct {
	Residual, Operand int
	// Gated is the columns of the widest product that is gated. A backend
	// whose product does not gate keeps as many of kind operand.
	Gated int
}

// FootprintOf counts the buffers of a model's forward pass. Pooled rows, of
// which there is at most one for three tokens, are left out.
func FootprintOf(m Model) Footprint {
	c := &counter{}
	m.newPass(c).forward(m.Config().Layers, func(int, kernels.Buffer) {})
	return c.Footprint
}

// counter is a stream that allocates nothing and runs nothing.
type counter struct {
	kernels.Stream
	Footprint
}

func (c *counter) Embed(kernels.Embed)         {}
func (c *counter) Norm(kernels.Norm)           {}
func (c *counter) Attention(kernels.Attention) {}

func (c *counter) Linear(o kernels.Linear) {
	if o.Then == kernels.GEGLU {
		rows, _ := o.W.Dims()
		c.Gated = max(c.Gated, rounded(rows))
	}
}

func rounded(cols int) int { return (cols + 7) &^ 7 }

func (c *counter) Tokens(cols int, k kernels.Kind) kernels.Buffer {
	if k&kernels.Residual != 0 {
		c.Residual += rounded(cols)
	}
	if k&kernels.Operand != 0 {
		c.Operand += rounded(cols)
	}
	return nil
}

func (c *counter) Reuse(kernels.Buffer, int) kernels.Buffer { return nil }
