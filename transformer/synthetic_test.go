package transformer

import (
	"errors"
	"strings"
	"testing"
)

// TestSyntheticFamily checks a family whose only model is synthetic. Open must open its default model, and must return
// an error if the config.json of the family asks for an activation that the family does not support.
func TestSyntheticFamily(t *testing.T) {
	f := *Toy
	f.Published = []Published{{Name: "toy-s", layers: 2, hidden: 16, heads: 2}}
	f.Default = "synthetic:toy-s"
	list := List{&f}
	c, err := list.Open(f.Default)
	if err != nil || c.Config.Family != &f || c.Label != "toy-s" || !c.Synthetic || len(f.ModelNames()) != 0 {
		t.Errorf("%+v, %v, published %q", c, err, f.ModelNames())
	}
	f.configJSON = func(layers, hidden, heads int) string {
		return strings.Replace(Toy.configJSON(layers, hidden, heads), "}", `,"hidden_act":"silu"}`, 1)
	}
	_, err = list.Open(f.Default)
	if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), `synthetic:toy-s: config.json: hidden_act is "silu"`) {
		t.Errorf("an activation that is not the family's gives %v", err)
	}
	f.activation = "silu"
	if _, err := list.Open(f.Default); err != nil {
		t.Errorf("the family's own activation gives %v", err)
	}
}
