package weights

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// indexOf returns the JSON of an index with the given weight_map.
func indexOf(shardOf map[string]string) []byte {
	text, err := json.Marshal(map[string]any{"metadata": map[string]any{"total_size": 12}, "weight_map": shardOf})
	if err != nil {
		panic(err)
	}
	return text
}

// withoutPrefix is a function that tests pass to Rename. It removes "prefix." from the names of tensors, and removes
// the tensors whose names begin with "unused.".
func withoutPrefix(stored string) (name string, use bool) {
	return strings.TrimPrefix(stored, "prefix."), !strings.HasPrefix(stored, "unused.")
}

func TestShardsAreOneCheckpoint(t *testing.T) {
	folder := t.TempDir()
	first := safetensorsOf(f32Tensor("prefix.a", []int{2}, 1, 2), f32Tensor("unused.ids", []int{1}, 0))
	second := safetensorsOf(f32Tensor("prefix.b", []int{1}, 3), f32Tensor("unused.bias", []int{1}, 0))
	writeFile(t, folder, "model-00001-of-00002.safetensors", first)
	writeFile(t, folder, "model-00002-of-00002.safetensors", second)
	index := writeFile(t, folder, "model.safetensors.index.json", indexOf(map[string]string{
		"prefix.a": "model-00001-of-00002.safetensors", "prefix.b": "model-00002-of-00002.safetensors",
	}))
	for _, path := range []string{index, folder} {
		c, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Rename(withoutPrefix); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(c.Names(), []string{"a", "b"}) || !slices.Equal(readAll(t, c, "a"), []float32{1, 2}) || !slices.Equal(readAll(t, c, "b"), []float32{3}) {
			t.Errorf("names %q", c.Names())
		}
		listing := fmt.Sprintf("%x  model-00001-of-00002.safetensors\n%x  model-00002-of-00002.safetensors\n", sha256.Sum256(first), sha256.Sum256(second))
		want := sha256.Sum256([]byte(listing))
		if got, err := c.SHA256(t.Context()); err != nil || got != hex.EncodeToString(want[:]) {
			t.Errorf("digest %s, %v; want %x", got, err, want)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestShardsMayBePyTorchArchives(t *testing.T) {
	folder := t.TempDir()
	for i, name := range []string{"a", "b"} {
		writeFile(t, folder, fmt.Sprintf("pytorch_model-%d.bin", i), zipOf(stateDictOf(newPickler(), []int{1}, name).done(), map[string][]byte{"0": floats(float32(i))}))
	}
	writeFile(t, folder, "pytorch_model.bin.index.json", indexOf(map[string]string{"a": "pytorch_model-0.bin", "b": "pytorch_model-1.bin"}))
	c, err := Open(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := readAll(t, c, "b"); !slices.Equal(got, []float32{1}) {
		t.Errorf("b = %v", got)
	}
}

func TestBadIndexesAreRefused(t *testing.T) {
	shard := safetensorsOf(f32Tensor("a", []int{1}, 1))
	both := safetensorsOf(f32Tensor("a", []int{1}, 1), f32Tensor("extra", []int{1}, 1))
	cases := map[string]struct {
		index []byte
		want  []string
	}{
		"missing shard":       {indexOf(map[string]string{"a": "one.safetensors", "b": "gone.safetensors"}), []string{"gone.safetensors", "missing"}},
		"tensor not in shard": {indexOf(map[string]string{"a": "one.safetensors", "b": "one.safetensors"}), []string{`"b"`, "one.safetensors", "does not hold it"}},
		"tensor not in index": {indexOf(map[string]string{"a": "two.safetensors"}), []string{`"extra"`, "two.safetensors"}},
		"broken shard":        {indexOf(map[string]string{"a": "cut.safetensors"}), []string{"cut.safetensors", "cut short"}},
		"parent folder":       {indexOf(map[string]string{"a": "../one.safetensors"}), []string{`"../one.safetensors"`, "plain file name"}},
		"other folder":        {indexOf(map[string]string{"a": "sub/one.safetensors"}), []string{"plain file name"}},
		"backslash":           {indexOf(map[string]string{"a": `..\one.safetensors`}), []string{"plain file name"}},
		"absolute":            {indexOf(map[string]string{"a": "/etc/passwd"}), []string{"plain file name"}},
		"dots":                {indexOf(map[string]string{"a": ".."}), []string{"plain file name"}},
		"dot":                 {indexOf(map[string]string{"a": "."}), []string{"plain file name"}},
		"no name":             {indexOf(map[string]string{"a": ""}), []string{"plain file name"}},
		"number as shard":     {[]byte(`{"weight_map":{"a":3}}`), []string{`"a"`}},
		"map is a list":       {[]byte(`{"weight_map":["a"]}`), []string{"weight_map", "not a JSON object"}},
		"empty map":           {indexOf(nil), []string{"not a JSON object"}},
		"no map":              {[]byte(`{"hidden_size":3}`), []string{"weight_map"}},
		"name twice":          {[]byte(`{"weight_map":{"a":"one.safetensors","a":"one.safetensors"}}`), []string{`"a" twice`}},
		"not JSON":            {[]byte(`weights`), []string{"not JSON"}},
		"cut":                 {[]byte(`{"weight_map":{"a":"one.safetensors"`), []string{"not JSON"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			writeFile(t, folder, "one.safetensors", shard)
			writeFile(t, folder, "two.safetensors", both)
			writeFile(t, folder, "cut.safetensors", shard[:len(shard)-1])
			checkpoint, err := Open(writeFile(t, folder, "x.index.json", c.index))
			if err == nil {
				err = errors.Join(checkpoint.Rename(withoutPrefix), checkpoint.Close())
			}
			wantError(t, err, append(c.want, folder)...)
		})
	}
}

func TestIndexMustBeAReadableFile(t *testing.T) {
	folder := t.TempDir()
	if err := os.Mkdir(filepath.Join(folder, "model.safetensors.index.json"), 0o755); err != nil {
		t.Fatal(err)
	}
	c := &Checkpoint{Source: filepath.Join(folder, "model.safetensors.index.json")}
	wantError(t, c.openShards(), "regular file")
}

func FuzzIndex(f *testing.F) {
	f.Add(indexOf(map[string]string{"a": "one.safetensors"}))
	f.Add([]byte(`{"weight_map":{"a":"../x"}}`))
	f.Add([]byte(`{"metadata":[[[]]],"weight_map":{}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var shardOf map[string]string
		var err error
		bounded(t, len(text), func() { shardOf, err = parseIndex(text) })
		if err != nil {
			return
		}
		for name, shard := range shardOf {
			if filepath.Base(shard) != shard || shard == ".." || !filepath.IsLocal(shard) {
				t.Errorf("tensor %q leads to %q, out of the folder", name, shard)
			}
		}
	})
}

func FuzzSafetensorsHeader(f *testing.F) {
	f.Add([]byte(`{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`), uint16(4))
	f.Add([]byte(`{"__metadata__":{"a":"b"},"x":{"dtype":"BF16","shape":[0,3],"data_offsets":[0,0]},"y":{"dtype":"F64","shape":[],"data_offsets":[0,8]}}  `), uint16(8))
	f.Add([]byte(`{"x":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}`), uint16(0))
	folder := f.TempDir()
	f.Fuzz(func(t *testing.T, header []byte, size uint16) {
		content := append(withLength(string(header)), make([]byte, size)...)
		path := writeFile(t, folder, "x.safetensors", content)
		var c *Checkpoint
		var err error
		bounded(t, len(content), func() { c, err = Open(path) })
		if err != nil {
			return
		}
		entries, _ := parseHeader(header)
		total := 0
		for _, e := range entries {
			total += e.count * dtypeSizes[e.dtype]
		}
		if total > int(size) {
			t.Errorf("the tensors take %d bytes of %d", total, size)
		}
		readEverything(t, c)
	})
}
