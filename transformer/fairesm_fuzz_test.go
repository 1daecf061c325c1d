package transformer

import (
	"errors"
	"testing"
)

// FuzzFairESMArguments reads hyper-parameters from the values that a file of fair-esm stores beside the tensors. It
// tries any number of heads, several types of each value, and several places in the file. The numbers of blocks and
// columns and the size of the vocabulary must not change. For a number of heads that the model cannot compute,
// Config.check must return an error that wraps ErrUnsupported.
func FuzzFairESMArguments(f *testing.F) {
	for _, heads := range []int64{20, 0, -1, 1 << 40, 7} {
		f.Add(heads, true, uint8(0), uint8(0))
		f.Add(heads, false, uint8(1), uint8(1))
	}
	f.Fuzz(func(t *testing.T, heads int64, dropout bool, place, kind uint8) {
		args := map[string]any{"encoder_attention_heads": heads, "token_dropout": dropout}
		switch kind % 4 {
		case 1:
			args["encoder_attention_heads"] = float64(heads)
		case 2:
			args["token_dropout"] = heads
		case 3:
			args = nil
		}
		values := []map[any]any{{"args": args}, {"cfg": map[any]any{"model": args}}, {"args": args, "cfg": nil}, {"args": "none", "cfg": map[any]any{"model": args}},
			{"cfg": []any{args}}, nil}[place%6]
		config, _ := Families.Config("esm2-8m")
		before := config
		ESM2.deduce(values, &config)
		if config.Layers != before.Layers || config.Hidden != before.Hidden || config.Vocabulary != before.Vocabulary {
			t.Errorf("%v changes %+v to %+v", values, before, config)
		}
		err := config.check()
		if possible := config.Heads > 0 && config.Heads <= 1<<10 && config.Hidden%config.Heads == 0 && config.Hidden/config.Heads%2 == 0; possible != (err == nil) {
			t.Errorf("%d heads: %v", config.Heads, err)
		}
		if err != nil && !errors.Is(err, ErrUnsupported) {
			t.Errorf("%d heads: %v is no ErrUnsupported", config.Heads, err)
		}
	})
}
