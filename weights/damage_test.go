package weights

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestZerosAreDamage checks that Check refuses a tensor with Spec.Nonzero if all its values are zero, and names it in
// the error. A tensor with a single other value must be accepted.
func TestZerosAreDamage(t *testing.T) {
	zeros := make([]float32, 12)
	last := append(slices.Clone(zeros[1:]), 1)
	specs := []Spec{{Name: "norm", Shape: []int{12}, Nonzero: true}, {Name: "w", Shape: []int{4, 3}, Nonzero: true},
		{Name: "bias", Shape: []int{12}}, {Name: "freq", Shape: []int{1}, Optional: true, Nonzero: true}}
	for _, c := range []struct {
		norm, w []float32
		want    string
	}{{last, last, ""}, {last, zeros, "1 tensors (w)"}, {zeros, last, "1 tensors (norm)"}, {zeros, zeros, "2 tensors (norm, w)"}} {
		path := writeFile(t, t.TempDir(), "x.safetensors", safetensorsOf(f32Tensor("norm", []int{12}, c.norm...),
			f32Tensor("w", []int{4, 3}, c.w...), f32Tensor("bias", []int{12}, zeros...)))
		opened, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer opened.Close()
		err = opened.Check(specs)
		if c.want == "" && err != nil || c.want != "" && !errors.Is(err, ErrDamaged) {
			t.Errorf("%v, want %q", err, c.want)
		} else if c.want != "" {
			wantError(t, err, path, c.want)
		}
	}
}

// TestTorchChecksums checks that hashing a PyTorch file finds a changed bit in a storage by its checksum, wherever in
// the storage the bit is. A storage that no tensor uses is not checked.
func TestTorchChecksums(t *testing.T) {
	large := make([]byte, 4*50_000) // more than io.Copy copies at once
	rand.NewChaCha8([32]byte{1}).Read(large)
	p := newPickler().op(opEmptyDict, opMark)
	p.str("a").tensor("FloatStorage", "0", 2).str("b").tensor("FloatStorage", "1", 50_000)
	p.str("tied").tensor("FloatStorage", "0", 2).str("c").tensor("FloatStorage", "2", 1)
	whole := zipOf(p.op(opSetItems).done(), map[string][]byte{"0": floats(1, 2), "1": large, "2": floats(42), "3": []byte("not used")})
	sum := func(content []byte) error {
		c, err := Open(writeFile(t, t.TempDir(), "x.pt", content))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, err = c.SHA256(t.Context())
		return err
	}
	if err := sum(whole); err != nil {
		t.Error(err)
	}
	for part, want := range map[string]string{
		string(floats(1, 2)): "(archive/data/0)", string(floats(42)): "(archive/data/2)", string(large[:64]): "(archive/data/1)",
		string(large[100_000:100_064]): "(archive/data/1)", string(large[len(large)-64:]): "(archive/data/1)", "not used": "",
	} {
		damaged := slices.Clone(whole)
		damaged[bytes.Index(whole, []byte(part))] ^= 0x10
		if err := sum(damaged); want == "" && err != nil || want != "" && (!errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), want)) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// TestWrappedCheckpoints checks that tensors get their plain names if a training program has put the state dict under a
// key such as "model", or has added a prefix such as "module." to the names of all tensors.
func TestWrappedCheckpoints(t *testing.T) {
	names := []string{"esm.a", "esm.b"}
	prefixed := func(prefix string) []byte {
		return safetensorsOf(f32Tensor(prefix+names[0], []int{1}, 1), f32Tensor(prefix+names[1], []int{1}, 2))
	}
	files := map[string][]byte{"one.safetensors": safetensorsOf(f32Tensor("module.esm.a", []int{1}, 1), f32Tensor("esm.b", []int{1}, 2))}
	for i, prefix := range []string{"module.", "model.", "_orig_mod.", "base_model.model.", "module._orig_mod.", "state_dict.model."} {
		files[string(rune('a'+i))+".safetensors"] = prefixed(prefix)
	}
	for _, key := range []string{"state_dict", "model", "model_state_dict", "module"} {
		p := newPickler().op(opEmptyDict, opMark).str("epoch").int(3).str(key).op(opEmptyDict, opMark)
		p.str("model.esm.a").tensor("FloatStorage", "0", 1).str("model.esm.b").tensor("FloatStorage", "1", 1)
		files[key+".ckpt"] = zipOf(p.op(opSetItems, opSetItems).done(), map[string][]byte{"0": floats(1), "1": floats(2)})
	}
	for name, content := range files {
		folder := t.TempDir()
		writeFile(t, folder, name, content)
		c, err := Open(folder)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		defer c.Close()
		want := names
		if name == "one.safetensors" { // one name of this file lacks the prefix
			want = []string{"esm.b", "module.esm.a"}
		}
		if got := c.Names(); !slices.Equal(got, want) {
			t.Errorf("%s: tensors %q, want %q", name, got, want)
		} else if want[0] == "esm.a" && readAll(t, c, "esm.b")[0] != 2 {
			t.Errorf("%s: the values are exchanged", name)
		}
	}
	folder := t.TempDir()
	writeFile(t, folder, "s1.safetensors", safetensorsOf(f32Tensor("module.esm.a", []int{1}, 1)))
	writeFile(t, folder, "s2.safetensors", safetensorsOf(f32Tensor("module.esm.b", []int{1}, 2)))
	writeFile(t, folder, "model.safetensors.index.json", indexOf(map[string]string{"module.esm.a": "s1.safetensors", "module.esm.b": "s2.safetensors"}))
	c, err := Open(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if !slices.Equal(c.Names(), names) {
		t.Errorf("of shards: tensors %q", c.Names())
	}
}

// TestPartsOfCheckpoints checks that adapters, and shards without their index, are refused, and that the error tells
// the user what to do.
func TestPartsOfCheckpoints(t *testing.T) {
	content := safetensorsOf(f32Tensor("base_model.model.q.lora_A.weight", []int{1}, 1))
	adapter := t.TempDir()
	writeFile(t, adapter, "adapter_config.json", []byte("{}"))
	writeFile(t, adapter, "adapter_model.safetensors", content)
	_, err := Open(adapter)
	wantError(t, err, "adapter_model.safetensors", "LoRA", "merge")
	_, err = Open(writeFile(t, t.TempDir(), "model.safetensors", content))
	wantError(t, err, "LoRA", "merge")
	shards := t.TempDir()
	writeFile(t, shards, "model-00001-of-00002.safetensors", content)
	writeFile(t, shards, "model-00002-of-00002.safetensors", content)
	_, err = Open(shards)
	wantError(t, err, shards, "shards", "model-00001-of-00002.safetensors", "model.safetensors.index.json is missing")
	_, err = Open(shards + "/model-00001-of-00002.safetensors")
	wantError(t, err, "one of several shards", "folder")
	if err := os.Remove(shards + "/model-00002-of-00002.safetensors"); err != nil {
		t.Fatal(err)
	}
	_, err = Open(shards)
	wantError(t, err, shards, "shards", "model.safetensors.index.json is missing")
}
