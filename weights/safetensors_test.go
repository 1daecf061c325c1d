package weights

import (
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestSafetensorsDecodesEachFormat(t *testing.T) {
	halves := []uint16{0x3c00, 0xc000, 0x0001, 0x7bff, 0x8000, 0x7c00} // 1, -2, 2^-24, 65504, -0, +Inf
	brains := []uint16{0x3f80, 0xc000, 0x0001, 0x7f7f, 0x8000, 0x7f80} // 1, -2, 2^-133, 255·2^120, -0, +Inf
	path := writeFile(t, t.TempDir(), "x.safetensors", safetensorsOf(
		f32Tensor("single", []int{3, 2}, 1, -2, 0.1, float32(math.Inf(-1)), math.MaxFloat32, math.SmallestNonzeroFloat32),
		u16Tensor("half", f16, []int{2, 3}, halves...),
		u16Tensor("brain", bf16, []int{6}, brains...),
		f32Tensor("scalar", nil, 42),
		f32Tensor("empty", []int{0, 5}),
		stored{name: "ids", dtype: "I32", shape: []int{2}, bytes: []byte{7, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}},
		stored{name: "position_ids", dtype: "I64", shape: []int{1}, bytes: make([]byte, 8)},
	))
	c, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	minusZero := float32(math.Copysign(0, -1))
	for name, want := range map[string][]float32{
		"single": {1, -2, 0.1, float32(math.Inf(-1)), math.MaxFloat32, math.SmallestNonzeroFloat32},
		"half":   {1, -2, 0x1p-24, 65504, minusZero, float32(math.Inf(1))},
		"brain":  {1, -2, 0x1p-133, 255 * 0x1p120, minusZero, float32(math.Inf(1))},
		"scalar": {42},
		"empty":  {},
	} {
		got := readAll(t, c, name)
		if !slices.EqualFunc(got, want, func(a, b float32) bool { return bitsOf(a) == bitsOf(b) }) {
			t.Errorf("%s = %v, want %v", name, got, want)
		}
	}
	if got := c.Names(); !slices.Equal(got, []string{"brain", "empty", "half", "ids", "position_ids", "scalar", "single"}) {
		t.Errorf("names %q", got)
	}
	ids, _ := c.Tensor("position_ids")
	_, err = ids.Float32s()
	wantError(t, err, `"position_ids"`, "I64")
}

func TestSafetensorsListsFormatsItDoesNotKnow(t *testing.T) {
	content := append(withLength(`{"x":{"dtype":"F8_E4M3","shape":[3],"data_offsets":[0,3]}}`), 1, 2, 3)
	c, err := Open(writeFile(t, t.TempDir(), "x.safetensors", content))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	x, _ := c.Tensor("x")
	_, err = x.Float32s()
	wantError(t, err, `"x"`, "F8_E4M3")
}

func TestSafetensorsRefusesBadHeaders(t *testing.T) {
	const four = `"dtype":"F32","shape":[1],"data_offsets":[0,4]`
	cases := map[string]struct {
		content []byte
		want    []string
	}{
		"header longer than file": {append([]byte{200, 0, 0, 0, 0, 0, 0, 0}, '{'), []string{"cut short", "200"}},
		"huge header length":      {[]byte("\xff\xff\xff\xff\xff\xff\xff\xff{"), []string{"18446744073709551615"}},
		"three bytes":             {[]byte{1, 0, 0}, []string{"cut short"}},
		"not JSON":                {withLength(`{"x": ]`), []string{"invalid character"}},
		"unfinished JSON":         {withLength(`{"x":{` + four + `}`), []string{"not JSON"}},
		"a list":                  {withLength(`[1]`), []string{"not a JSON object"}},
		"text after it":           {withLength(`{} {}`), []string{"closing brace"}},
		"twice the same name":     {append(withLength(`{"x":{`+four+`},"x":{`+four+`}}`), 0, 0, 0, 0), []string{"twice", `"x"`}},
		"no shape":                {withLength(`{"x":{"dtype":"F32","data_offsets":[0,4]}}`), []string{`"x"`, "no shape"}},
		"negative dimension":      {withLength(`{"x":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}`), []string{`"x"`, "negative"}},
		"huge dimensions":         {withLength(`{"x":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}`), []string{`"x"`, "impossible shape"}},
		"huge beside empty":       {withLength(`{"x":{"dtype":"F32","shape":[0,4611686018427387904,9],"data_offsets":[0,0]}}`), []string{`"x"`, "impossible shape"}},
		"dimension over int64":    {withLength(`{"x":{"dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,0]}}`), []string{`"x"`, "99999999999999999999"}},
		"nine dimensions":         {withLength(`{"x":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}}`), []string{`"x"`, "9 dimensions"}},
		"one offset":              {withLength(`{"x":{"dtype":"F32","shape":[1],"data_offsets":[0]}}`), []string{`"x"`, "data_offsets"}},
		"negative offset":         {withLength(`{"x":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}`), []string{`"x"`, "impossible data_offsets"}},
		"offsets backwards":       {withLength(`{"x":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}`), []string{`"x"`, "impossible data_offsets"}},
		"offsets against shape":   {append(withLength(`{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}`), 0, 0, 0, 0), []string{`"x"`, "8 bytes"}},
		"overlap": {append(withLength(`{"x":{`+four+`},"y":{"dtype":"F16","shape":[1],"data_offsets":[2,4]}}`), 0, 0, 0, 0),
			[]string{`"y"`, `overlaps "x"`}},
		"hole":       {append(withLength(`{"x":{"dtype":"F16","shape":[1],"data_offsets":[2,4]}}`), 0, 0, 0, 0), []string{"2 bytes", `"x"`}},
		"rest":       {append(withLength(`{"x":{`+four+`}}`), 0, 0, 0, 0, 9), []string{"1 bytes at the end"}},
		"cut values": {append(withLength(`{"w":{"dtype":"F16","shape":[1],"data_offsets":[4,6]},"x":{`+four+`}}`), 0, 0, 0), []string{"cut short", "6 bytes", "3 are there", `"x"`}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			path := writeFile(t, t.TempDir(), "x.safetensors", c.content)
			_, err := Open(path)
			wantError(t, err, append(c.want, path)...)
			if slices.Contains(c.want, "cut short") && !errors.Is(err, ErrTruncated) {
				t.Error("it does not match ErrTruncated")
			}
		})
	}
}

// TestSafetensorsCutAnywhereIsRefused checks that a file that is truncated at any byte cannot be opened.
func TestSafetensorsCutAnywhereIsRefused(t *testing.T) {
	whole := safetensorsOf(f32Tensor("a", []int{2}, 1, 2), f32Tensor("b", []int{1, 3}, 1, 2, 3))
	folder := t.TempDir()
	for n := range whole {
		c, err := Open(writeFile(t, folder, "cut.safetensors", whole[:n]))
		if err == nil {
			c.Close()
			t.Fatalf("the first %d of %d bytes were accepted", n, len(whole))
		}
	}
}

func TestOpenSaysWhatTheFileIsInstead(t *testing.T) {
	folder := t.TempDir()
	for name, c := range map[string]struct {
		content string
		want    string
	}{
		"page.safetensors":    {"\n<!DOCTYPE html><html><body>404</body></html>", "web page"},
		"page.bin":            {"<html lang=\"en\">", "web page"},
		"page.index.json":     {"<HTML>", "web page"},
		"pointer.safetensors": {"version https://git-lfs.github.com/spec/v1\noid sha256:24c5\nsize 3\n", "git lfs pull"},
		"legacy.pt":           {string(legacyTorchMagic) + "M\xe9\x03.", "before version 1.6"},
		"text.bin":            {"hello, this is text", `text, not a checkpoint; a download may have left it there: it begins with "hello, this is text"`},
		"text.safetensors":    {strings.Repeat("x", maxHead-1) + "é, which is cut", "text, not a checkpoint"},
		"error.safetensors":   {`{"error":"Invalid username or password."}`, `begins with "{\"error\":\"Invalid username`},
		"packed.safetensors":  {"\x1f\x8b\x08\x00\x00", "compressed with gzip"},
		"other.bin":           {"\x00\x01\x02", "neither"},
		"empty.pt":            {"", "is empty"},
	} {
		path := writeFile(t, folder, name, []byte(c.content))
		_, err := Open(path)
		wantError(t, err, path, c.want)
	}
	_, err := Open(filepath.Join(folder, "missing.safetensors"))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file gives %v", err)
	}
}

func TestReadRowsRefusesRowsThatAreNotThere(t *testing.T) {
	path := writeFile(t, t.TempDir(), "x.safetensors", safetensorsOf(
		f32Tensor("m", []int{2, 2, 3}, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11), f32Tensor("flat", []int{4, 0})))
	c, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	m, _ := c.Tensor("m")
	if !slices.Equal(m.Shape(), []int{2, 2, 3}) {
		t.Errorf("shape %v", m.Shape())
	}
	dst := make([]float32, 6)
	if err := m.ReadRows(dst, 2); err != nil || !slices.Equal(dst, []float32{6, 7, 8, 9, 10, 11}) {
		t.Errorf("rows 2 and 3 are %v, %v", dst, err)
	}
	for _, first := range []int{3, 5, -1, math.MaxInt, math.MinInt} {
		wantError(t, m.ReadRows(dst, first), `"m"`, "it has 4")
	}
	wantError(t, m.ReadRows(dst[:4], 0), `"m"`, "whole number of rows of 3")
	flat, _ := c.Tensor("flat")
	if err := flat.ReadRows(nil, 0); err != nil {
		t.Errorf("rows of length 0: %v", err)
	}
	wantError(t, flat.ReadRows(dst, 0), `"flat"`)
}

func TestEachSharedGoldenFileOpens(t *testing.T) {
	paths, err := filepath.Glob(sharedFile(t, "goldens/synthetic", "*.safetensors"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, path := range paths {
		c, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		readEverything(t, c)
	}
}

// sharedFile returns the path of reference files in the folder called shared beside the repository. It skips the test
// if the folder of the files does not exist.
func sharedFile(t testing.TB, elements ...string) string {
	t.Helper()
	path := filepath.Join(append([]string{"..", "..", "shared"}, elements...)...)
	if _, err := os.Stat(filepath.Dir(path)); err != nil {
		t.Skipf("skipped: the shared reference files are not beside the checkout (%v)", err)
	}
	return path
}

func BenchmarkStoredRows(b *testing.B) {
	const n = 64 * 1280
	for _, dtype := range []dtype{f32, f16, bf16} {
		b.Run(string(dtype), func(b *testing.B) {
			values := make([]byte, n*dtypeSizes[dtype])
			for i := range values {
				values[i] = byte(i*37) & 0x3f
			}
			c, err := Open(writeFile(b, b.TempDir(), "x.safetensors", safetensorsOf(stored{"x", dtype, []int{64, 1280}, values})))
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			benchmarkRows(b, c, "x")
		})
	}
}
