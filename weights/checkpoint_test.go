package weights

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
)

func TestOpenPicksTheCheckpointOfAFolder(t *testing.T) {
	one := func(v float32) []byte { return safetensorsOf(f32Tensor("w", []int{1}, v)) }
	folder := t.TempDir()
	// The files are added in ascending order of preference, so each new file takes precedence over the earlier ones.
	for i, file := range []string{"any.safetensors", "pytorch_model.bin", "model.safetensors.index.json", "model.safetensors"} {
		content := one(float32(i))
		if filepath.Ext(file) == ".json" {
			writeFile(t, folder, "shard", content)
			content = indexOf(map[string]string{"w": "shard"})
		}
		writeFile(t, folder, file, content)
		c, err := Open(folder)
		if err != nil {
			t.Fatal(err)
		}
		if got := readAll(t, c, "w")[0]; got != float32(i) || c.Source != filepath.Join(folder, file) {
			t.Errorf("with %s there, %s is opened", file, c.Source)
		}
		c.Close()
	}
}

func TestOpenRefusesAFolderWithoutOneCheckpoint(t *testing.T) {
	folder := t.TempDir()
	_, err := Open(folder)
	wantError(t, err, folder, "no checkpoint", "model.safetensors")
	writeFile(t, folder, "b.pt", nil)
	writeFile(t, folder, "b-regression.pt", nil)
	_, err = Open(folder)
	wantError(t, err, folder, "several", "b-regression.pt, b.pt")
	_, err = Open(folder, "-regression.pt")
	wantError(t, err, "b.pt is empty") // b-regression.pt does not count as a checkpoint
	writeFile(t, folder, "a.safetensors", nil)
	_, err = Open(folder, "-regression.pt")
	wantError(t, err, folder, "several", "a.safetensors, b.pt")
	_, err = Open(filepath.Join(folder, "gone"))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a path that does not exist gives %v", err)
	}
}

func TestOpenTakesInWhatLiesBeside(t *testing.T) {
	folder := t.TempDir()
	content := safetensorsOf(f32Tensor("w", []int{1}, 1))
	path := writeFile(t, folder, "model.safetensors", content)
	c, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if c.ConfigJSON != nil || c.Beside("tokenizer.json") != "" || c.Revision != "" || c.Values != nil {
		t.Error("a file alone is said to have neighbours")
	}
	sum := sha256.Sum256(content)
	if got, err := c.SHA256(t.Context()); err != nil || got != hex.EncodeToString(sum[:]) {
		t.Errorf("SHA-256 %s, %v", got, err)
	}
	c.Close()
	writeFile(t, folder, "config.json", []byte(`{"a":1}`))
	tokenizer := writeFile(t, folder, "tokenizer.json", []byte(`{}`))
	if c, err = Open(folder); err != nil {
		t.Fatal(err)
	}
	if string(c.ConfigJSON) != `{"a":1}` || c.Beside("tokenizer.json") != tokenizer {
		t.Errorf("config %q, tokenizer %q", c.ConfigJSON, c.Beside("tokenizer.json"))
	}
	c.Close()
	for text, want := range map[string]string{"{": "not JSON", "<!doctype html>": "web page"} {
		writeFile(t, folder, "config.json", []byte(text))
		_, err = Open(folder)
		wantError(t, err, filepath.Join(folder, "config.json"), want)
	}
}

// manyRows writes a checkpoint with one tensor w of rows×rowLen ascending numbers, and returns its path and the
// numbers.
func manyRows(t *testing.T, rows, rowLen int) (path string, want []float32) {
	want = make([]float32, rows*rowLen)
	for i := range want {
		want[i] = float32(i)
	}
	return writeFile(t, t.TempDir(), "x.safetensors", safetensorsOf(f32Tensor("w", []int{rows, rowLen}, want...))), want
}

func TestConcurrentReads(t *testing.T) {
	const rows, rowLen = 300, 301
	path, want := manyRows(t, rows, rowLen)
	c, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	tensor, _ := c.Tensor("w")
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for first := worker; first < rows; first += 7 {
				n := min(1+worker*20, rows-first)
				dst := make([]float32, n*rowLen)
				if err := tensor.ReadRows(dst, first); err != nil {
					t.Error(err)
				}
				if !slices.Equal(dst, want[first*rowLen:(first+n)*rowLen]) {
					t.Errorf("rows %d to %d are wrong", first, first+n)
				}
			}
		})
	}
	wg.Wait()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestReadsAfterCloseFail(t *testing.T) {
	path, _ := manyRows(t, 2, 2)
	c, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	tensor, _ := c.Tensor("w")
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	err = tensor.ReadRows(make([]float32, 2), 0)
	wantError(t, err, `"w"`, path)
	if !errors.Is(err, fs.ErrClosed) {
		t.Errorf("%v does not match fs.ErrClosed", err)
	}
	if _, err := c.SHA256(t.Context()); err == nil {
		t.Error("a closed file was hashed")
	}
}

// TestFileThatShrinksIsAnError checks that reading and hashing a checkpoint fail if its file has been truncated since
// it was opened.
func TestFileThatShrinksIsAnError(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("skipped: Windows does not let an open file be cut")
	}
	path, _ := manyRows(t, 64, 1024)
	c, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	tensor, _ := c.Tensor("w")
	if err := os.Truncate(path, 8192); err != nil {
		t.Fatal(err)
	}
	wantError(t, tensor.ReadRows(make([]float32, 1024), 63), `"w"`, path, "shorter")
	if _, err := c.SHA256(t.Context()); !errors.Is(err, errShort) {
		t.Errorf("hashing the cut file gives %v", err)
	}
}
