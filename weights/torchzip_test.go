package weights

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"testing"
)

// floats returns the bytes of a storage with float32 values.
func floats(values ...float32) []byte { return f32Tensor("", nil, values...).bytes }

// stateDictOf adds a state dict to a pickle. The state dict maps each name to a tensor of the given shape. The key of
// the tensor's storage is the index of the name in names.
func stateDictOf(p *pickler, shape []int, names ...string) *pickler {
	p.orderedDict().op(opMark)
	for i, name := range names {
		p.str(name).tensor("FloatStorage", string(rune('0'+i)), shape...)
	}
	return p.op(opSetItems)
}

func TestTorchReadsAStateDict(t *testing.T) {
	p := newPickler().orderedDict().op(opMark)
	p.str("prefix.a.weight").tensor("FloatStorage", "0", 2, 2)
	p.str("half").tensor("HalfStorage", "1", 2)
	p.str("brain").tensor("BFloat16Storage", "2", 2)
	p.str("unused.ids").tensor("LongStorage", "3", 1)
	p.str("parameter").global("torch._utils", "_rebuild_parameter").op(opMark).tensor("FloatStorage", "0", 4).op(opNewTrue).orderedDict().op(opTuple, opReduce)
	p.str("second row").view("FloatStorage", "0", 4, 2, []int{1, 2}, []int{99, 1})
	p.str("transposed").view("FloatStorage", "0", 4, 0, []int{2, 2}, []int{1, 2})
	p.str("scalar").tensor("FloatStorage", "4")
	p.op(opSetItems, opEmptyDict).str("_metadata").orderedDict().op(opSetItem, opBuild)
	path := writeFile(t, t.TempDir(), "pytorch_model.bin", zipOf(p.done(), map[string][]byte{
		"0": floats(1, 2, 3, 4),
		"1": u16Tensor("", f16, nil, 0x3c00, 0xc000).bytes,
		"2": u16Tensor("", bf16, nil, 0x3f80, 0xc000).bytes,
		"3": make([]byte, 8),
		"4": floats(9),
	}))
	c, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Rename(withoutPrefix); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]float32{
		"a.weight": {1, 2, 3, 4}, "half": {1, -2}, "brain": {1, -2}, "parameter": {1, 2, 3, 4}, "second row": {3, 4}, "scalar": {9},
	} {
		if got := readAll(t, c, name); !slices.Equal(got, want) {
			t.Errorf("%s = %v, want %v", name, got, want)
		}
	}
	transposed, _ := c.Tensor("transposed")
	wantError(t, transposed.ReadRows(make([]float32, 2), 0), `"transposed"`, "not contiguous")
	wantError(t, c.Check([]Spec{{Name: "transposed", Shape: []int{2, 2}}}), "transposed", "not contiguous")
	if _, ok := c.Tensor("unused.ids"); ok || c.Values != nil {
		t.Error("an unused tensor or other values appear")
	}
}

// TestTorchReadsValuesBesideAModel checks a PyTorch file whose state dict is under the key "model". The tensors must
// come from there, and Checkpoint.Values must have the values under the other keys.
func TestTorchReadsValuesBesideAModel(t *testing.T) {
	p := newPickler().op(opEmptyDict, opMark).str("args").global("argparse", "Namespace").op(opEmptyTuple, opNewObj, opEmptyDict, opMark)
	p.str("layers").int(1).str("dropout").op(opNewTrue).str("arch").str("net").op(opSetItems, opBuild)
	stateDictOf(p.str("model"), []int{1, 2}, "a.weight").op(opSetItems)
	c, err := Open(writeFile(t, t.TempDir(), "x.pt", zipOf(p.done(), map[string][]byte{"0": floats(5, 6)})))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := readAll(t, c, "a.weight"); !slices.Equal(got, []float32{5, 6}) || len(c.Names()) != 1 {
		t.Errorf("%v, names %q", got, c.Names())
	}
	args, _ := c.Values["args"].(map[string]any)
	if args["layers"] != int64(1) || args["dropout"] != true || args["arch"] != "net" || len(c.Values) != 1 {
		t.Errorf("values %v", c.Values)
	}
}

func TestTorchRefusesBadArchives(t *testing.T) {
	good := stateDictOf(newPickler(), []int{2}, "w").done()
	view := func(count, first int, shape, stride []int) []byte {
		return newPickler().op(opEmptyDict).str("w").view("FloatStorage", "0", count, first, shape, stride).op(opSetItem).done()
	}
	two := map[string][]byte{"0": floats(1, 2)}
	whole := zipOf(good, two)
	big := func(name string) []byte {
		return zipEntries(zip.Store, map[string][]byte{"archive/data.pkl": good, "archive/data/0": floats(1, 2), "archive/byteorder": []byte(name)})
	}
	cases := map[string]struct {
		content []byte
		want    []string
	}{
		"cut in half":           {whole[:len(whole)/2], []string{"cut short", "zip"}},
		"no pickle":             {zipEntries(zip.Store, map[string][]byte{"a.txt": nil}), []string{"data.pkl"}},
		"two pickles":           {zipEntries(zip.Store, map[string][]byte{"a/data.pkl": good, "b/data.pkl": good}), []string{"a/", "b/"}},
		"pickle too deep":       {zipEntries(zip.Store, map[string][]byte{"a/b/data.pkl": good}), []string{"data.pkl"}},
		"compressed":            {zipEntries(zip.Deflate, map[string][]byte{"archive/data.pkl": good, "archive/data/0": floats(1, 2)}), []string{"compressed"}},
		"big-endian":            {big("big"), []string{"byte order", "big"}},
		"endless byte order":    {big("little, or rather big"), []string{"byteorder"}},
		"storage missing":       {zipOf(good, nil), []string{"archive/data/0"}},
		"storage too short":     {zipOf(good, map[string][]byte{"0": floats(1)}), []string{"archive/data/0", "4 bytes", "8"}},
		"storage too long":      {zipOf(good, map[string][]byte{"0": floats(1, 2, 3)}), []string{"12 bytes"}},
		"huge storage":          {zipOf(view(math.MaxInt, 0, []int{2}, []int{1}), two), []string{"persistent id"}},
		"tensor beyond it":      {zipOf(view(2, 0, []int{3}, []int{1}), two), []string{"3 elements"}},
		"offset beyond it":      {zipOf(view(2, 1, []int{2}, []int{1}), two), []string{"from element 1"}},
		"negative offset":       {zipOf(view(2, -1, []int{2}, []int{1}), two), []string{"from element -1"}},
		"negative dimension":    {zipOf(view(2, 0, []int{-2}, []int{1}), two), []string{"negative"}},
		"huge dimensions":       {zipOf(view(2, 0, []int{1 << 27, 1 << 27, 1 << 27}, []int{1, 1, 1}), two), []string{"impossible shape"}},
		"more strides":          {zipOf(view(2, 0, []int{2}, []int{1, 1}), two), []string{"a size and a stride"}},
		"key is a path":         {zipOf(newPickler().tensor("FloatStorage", "../../0", 2).done(), two), []string{"../../0"}},
		"not a dict":            {zipOf(newPickler().op(opEmptyList).done(), nil), []string{"a list at its top level"}},
		"a list of a dict":      {zipOf(newPickler().op(opEmptyDict).str("optimizer").op(opEmptyList, opSetItem).done(), nil), []string{`"optimizer" is a list`}},
		"evil":                  {zipOf(newPickler().global("os", "system").str("true").op(opTuple1, opReduce).done(), nil), []string{`"os.system"`}},
		"evil beside tensors":   {zipOf(stateDictOf(newPickler(), []int{2}, "w").str("x").global("builtins", "eval").op(opSetItem).done(), two), []string{`"builtins.eval"`}},
		"names meet":            {zipOf(stateDictOf(newPickler(), []int{1}, "prefix.w", "w").done(), map[string][]byte{"0": floats(1), "1": floats(2)}), []string{`"prefix.w"`, `"w"`}},
		"pickle against CRC":    {flipped(whole, good), []string{"data.pkl", "checksum"}},
		"two equal entry names": {slices.Concat(twiceNamed(good)), []string{"two entries"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			path := writeFile(t, t.TempDir(), "model.pt", c.content)
			checkpoint, err := Open(path)
			if err == nil {
				err = errors.Join(checkpoint.Rename(withoutPrefix), checkpoint.Close())
			}
			wantError(t, err, append(c.want, path)...)
			if c.want[0] == `"os.system"` && !errors.Is(err, ErrForbidden) {
				t.Error("it does not match ErrForbidden")
			}
		})
	}
}

// flipped returns the archive with one byte of the pickle changed.
func flipped(archive, pickle []byte) []byte {
	damaged := slices.Clone(archive)
	for i := range damaged {
		if i+len(pickle) <= len(damaged) && slices.Equal(damaged[i:i+len(pickle)], pickle) {
			damaged[i+len(pickle)/2] ^= 0x20
			return damaged
		}
	}
	panic("the pickle is not in the archive")
}

// twiceNamed returns an archive with two storages of the same name: they are written as 0 and 1, and then 1 is renamed
// to 0.
func twiceNamed(pickle []byte) []byte {
	archive := zipOf(pickle, map[string][]byte{"0": floats(1), "1": floats(2)})
	name := []byte("archive/data/1")
	for i := range archive {
		if i+len(name) <= len(archive) && slices.Equal(archive[i:i+len(name)], name) {
			archive[i+len(name)-1] = '0'
		}
	}
	return archive
}

// TestTorchRefusesEntriesBeyondTheFile checks that a PyTorch file cannot be opened if the zip directory says that an
// entry ends outside the file.
func TestTorchRefusesEntriesBeyondTheFile(t *testing.T) {
	archive := zipOf(stateDictOf(newPickler(), []int{2}, "w").done(), map[string][]byte{"0": floats(1, 2)})
	refused := 0
	for i := 0; i+46 < len(archive); i++ {
		if binary.LittleEndian.Uint32(archive[i:]) != 0x02014b50 { // the signature of an entry in the zip directory
			continue
		}
		for _, size := range []uint32{1 << 30, math.MaxUint32 - 1} {
			damaged := slices.Clone(archive)
			binary.LittleEndian.PutUint32(damaged[i+20:], size)
			binary.LittleEndian.PutUint32(damaged[i+24:], size)
			if _, err := Open(writeFile(t, t.TempDir(), "model.pt", damaged)); err != nil {
				refused++
			}
		}
		damaged := slices.Clone(archive)
		binary.LittleEndian.PutUint32(damaged[i+42:], 1<<30) // offset of the entry in the file
		if _, err := Open(writeFile(t, t.TempDir(), "model.pt", damaged)); err != nil {
			refused++
		}
	}
	// Three archives for each of data.pkl, byteorder and data/0 are refused. The entry version is never read.
	if want := 3 * 3; refused != want {
		t.Errorf("%d damaged archives were refused, want %d", refused, want)
	}
}

// TestTorchRefusesAStorageThatReachesBeyondTheFile checks that a file cannot be opened if the pickle and the zip
// directory both say that a storage has 1 MiB, and the file is shorter.
func TestTorchRefusesAStorageThatReachesBeyondTheFile(t *testing.T) {
	const size = 1 << 20
	archive := zipOf(stateDictOf(newPickler(), []int{size / 4}, "w").done(), map[string][]byte{"0": floats(1, 2)})
	for i := 0; i+46 < len(archive); i++ {
		const name = "archive/data/0"
		if binary.LittleEndian.Uint32(archive[i:]) == 0x02014b50 && bytes.HasPrefix(archive[i+46:], []byte(name)) {
			binary.LittleEndian.PutUint32(archive[i+20:], size)
			binary.LittleEndian.PutUint32(archive[i+24:], size)
		}
	}
	_, err := Open(writeFile(t, t.TempDir(), "model.pt", archive))
	wantError(t, err, "archive/data/0", "1048576 bytes", "cut short")
	if !errors.Is(err, ErrTruncated) {
		t.Error("it does not match ErrTruncated")
	}
}

func TestLoadPickleReadsPublishedFiles(t *testing.T) {
	load := func(name string) map[any]any {
		v, closeFile, err := LoadPickle(sharedFile(t, "goldens/published/virnucpro", name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { closeFile() })
		return v.(map[any]any)
	}
	mean := func(file map[any]any) []any { // returns the mean of the first record
		record := (*file["data"].(*[]any))[0].(map[any]any)
		return *record["mean_representation"].(*[]any)
	}
	for _, name := range []string{"fixed_500bp_DNABERT_S.pt", "output_1_DNABERT_S.pt"} {
		dna := load(name)
		ids, rows := *dna["nucleotide"].(*[]any), *dna["data"].(*[]any)
		if len(ids) == 0 || len(ids) != len(rows) {
			t.Fatalf("%s: %d ids, %d rows", name, len(ids), len(rows))
		}
		for i, row := range rows {
			record := row.(map[any]any)
			if mean := *record["mean_representation"].(*[]any); record["label"] != ids[i] || len(mean) != 768 || mean[0].(float64) == 0 {
				t.Errorf("%s: row %d has label %v and %d numbers", name, i, record["label"], len(mean))
			}
		}
	}
	first := mean(load("fixed_500bp_DNABERT_S.pt"))
	if first[0] != 0.03268462046980858 || first[1] != 0.13215523958206177 {
		t.Errorf("the first numbers are %v and %v", first[0], first[1])
	}
	for _, name := range []string{"fixed_500bp_ESM.pt", "output_1_ESM.pt"} {
		protein := load(name)
		ids, rows := *protein["proteins"].(*[]any), *protein["data"].(*[]any)
		if len(ids) == 0 || len(ids) != len(rows) {
			t.Fatalf("%s: %d ids, %d rows", name, len(ids), len(rows))
		}
		for _, row := range rows {
			values, err := row.(*Tensor).Float32s()
			if err != nil || len(values) != 2560 || !(math.Abs(float64(values[7])) < 10) {
				t.Errorf("%s: %d values, %v", name, len(values), err)
			}
		}
	}
	// Each row of the merged file is a row of the DNABERT_S file followed by a row of the ESM file.
	merged := load("output_1_merged.pt")
	rows := merged["data"].(*Tensor)
	values, err := rows.Float32s()
	if err != nil || !slices.Equal(rows.Shape(), []int{4, 768 + 2560}) || len(*merged["ids"].(*[]any)) != 4 {
		t.Fatalf("merged: shape %v, %v", rows.Shape(), err)
	}
	dna := mean(load("output_1_DNABERT_S.pt"))
	if float64(values[0]) != dna[0] || float64(values[767]) != dna[767] {
		t.Error("the first merged row does not start with the DNA embedding")
	}
}

func TestLoadPickleRefusesOtherFiles(t *testing.T) {
	path := writeFile(t, t.TempDir(), "x.pt", safetensorsOf())
	_, _, err := LoadPickle(path)
	wantError(t, err, path, "PyTorch zip")
	path = writeFile(t, t.TempDir(), "x.pt", zipOf(newPickler().global("os", "system").done(), nil))
	_, _, err = LoadPickle(path)
	wantError(t, err, path, `"os.system"`)
}

func FuzzTorchArchive(f *testing.F) {
	f.Add(zipOf(stateDictOf(newPickler(), []int{2}, "w").done(), map[string][]byte{"0": floats(1, 2)}))
	f.Add(zipOf(newPickler().op(opNone).done(), nil))
	f.Add(zipEntries(zip.Deflate, map[string][]byte{"a/data.pkl": newPickler().op(opNone).done()}))
	folder := f.TempDir()
	f.Fuzz(func(t *testing.T, content []byte) {
		path := writeFile(t, folder, "x.pt", content)
		var c *Checkpoint
		var err error
		bounded(t, len(content), func() { c, err = Open(path) })
		if err != nil {
			return
		}
		if _, err := c.SHA256(t.Context()); err != nil && !errors.Is(err, ErrDamaged) {
			t.Error(err)
		}
		readEverything(t, c)
	})
}

// readEverything reads every readable tensor and closes the checkpoint.
func readEverything(t *testing.T, c *Checkpoint) {
	for _, name := range c.Names() {
		tensor, _ := c.Tensor(name)
		if tensor.unreadable != nil {
			continue
		}
		if _, err := tensor.Float32s(); err != nil {
			t.Errorf("a tensor that passed every check cannot be read: %v", err)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
