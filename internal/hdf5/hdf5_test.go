package hdf5

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"seqembed/internal/readback"
)

// memory implements File in memory.
type memory struct{ bytes.Buffer }

func (m *memory) WriteAt(p []byte, at int64) (int, error) { return copy(m.Bytes()[at:], p), nil }

// name returns the name of array i in a file of makeFile. The names are not in the order of i, and some have the same
// beginning.
func name(i int) string {
	return fmt.Sprintf("%x|%d é%s", i*7919%1000, i, strings.Repeat("-", i%13))
}

// makeFile returns the content of a file with n float32 arrays [1, 3], a group "inner" with an array of each type, and
// attributes.
func makeFile(t testing.TB, n int) []byte {
	t.Helper()
	var f memory
	w, err := NewWriter(&f)
	if err != nil {
		t.Fatal(err)
	}
	must := func(a Address, err error) Address {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	var root, inner Links
	for i := range n {
		row := must(w.Array(Float32, []int{1, 3}, values(i), Attribute{"original_id", "id " + name(i)}))
		if err := root.Add(name(i), row); err != nil {
			t.Fatal(err)
		}
	}
	var refs []byte
	for _, s := range texts {
		ref, err := w.String(s)
		if err != nil {
			t.Fatal(err)
		}
		refs = append(refs, ref[:]...)
	}
	err = errors.Join(
		inner.Add("texts", must(w.Array(String, []int{len(texts)}, refs))),
		inner.Add("half", must(w.Array(Float16, []int{2}, []byte{0, 0x3c, 0xff, 0x7b}))),
		inner.Add("double", must(w.Array(Float64, []int{1}, binary.LittleEndian.AppendUint64(nil, math.Float64bits(math.Pi))))),
		inner.Add("integers", must(w.Array(Int32, []int{1, 2}, []byte{1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}))),
		inner.Add("empty", must(w.Array(Float32, []int{0, 3}, nil))),
		root.Add("inner", must(w.Group(&inner, Attribute{"note", ""}))),
		w.Close(must(w.Group(&root, Attribute{"model", "esm2"}, Attribute{"größe", "3"}))),
	)
	if err != nil {
		t.Fatal(err)
	}
	return f.Bytes()
}

// texts are strings of several kinds, one of them longer than maxCollection, the usual maximum size of the collections
// that hold strings.
var texts = []string{"", "a", "eight by", strings.Repeat("0123456789", 9000), "é\n", ""}

func values(i int) (b []byte) {
	for c := range 3 {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(i)+float32(c)/7))
	}
	return b
}

// counts are numbers of arrays for makeFile. From 2*leafK on, the root group needs more than one symbol table node;
// with the last number, it also needs more than one level of its B-tree.
var counts = []int{0, 1, 2*leafK - 1, 2 * leafK, 2*leafK + 1, 4*leafK*internalK + 5}

func TestReaderFindsAll(t *testing.T) {
	for _, n := range counts {
		content := makeFile(t, n)
		r, err := Open(bytes.NewReader(content), int64(len(content)))
		if err != nil {
			t.Fatal(err)
		}
		root, err := r.Object(r.Root)
		if err != nil {
			t.Fatal(err)
		}
		if want := []Attribute{{"model", "esm2"}, {"größe", "3"}}; !root.IsGroup() || !slices.Equal(root.Attributes, want) {
			t.Errorf("root group %v, want attributes %v", root, want)
		}
		links, err := r.Links(root)
		if err != nil || len(links) != n+1 {
			t.Fatalf("%d links, want %d: %v", len(links), n+1, err)
		}
		if !slices.IsSortedFunc(links, func(a, b Link) int { return strings.Compare(a.Name, b.Name) }) {
			t.Error("the links are not sorted")
		}
		objects := map[string]Address{}
		for _, l := range links {
			objects[l.Name] = l.Object
		}
		for i := range n {
			o, err := r.Object(objects[name(i)])
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(o.Values)
			if err != nil || !bytes.Equal(got, values(i)) || o.Type != Float32 || !slices.Equal(o.Shape, []int{1, 3}) ||
				!slices.Equal(o.Attributes, []Attribute{{"original_id", "id " + name(i)}}) {
				t.Fatalf("array %d: %v of %v, %v, %v", i, o.Type, o.Shape, o.Attributes, err)
			}
		}
		if n > 1000 {
			continue
		}
		checkInner(t, r, objects["inner"])
	}
}

// checkInner checks that the group at an address has the arrays that makeFile writes into its group "inner".
func checkInner(t *testing.T, r *Reader, at Address) {
	t.Helper()
	o, err := r.Object(at)
	if err != nil {
		t.Fatal(err)
	}
	links, err := r.Links(o)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, l := range links {
		o, err := r.Object(l.Object)
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(o.Values)
		if err != nil {
			t.Fatal(err)
		}
		got[l.Name] = fmt.Sprint(o.Type, o.Shape, len(content))
		if o.Type != String {
			continue
		}
		for i, want := range texts {
			if s, err := r.String(content[i*stringRef:]); s != want || err != nil {
				t.Errorf("text %d has %d bytes, want %d: %v", i, len(s), len(want), err)
			}
		}
	}
	want := map[string]string{"texts": "string [6] 96", "half": "float16 [2] 4", "double": "float64 [1] 8", "integers": "int32 [1 2] 8",
		"empty": "float32 [0 3] 0"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("inner group %q, want %q", got, want)
	}
}

// TestH5pyReads checks that h5py, which uses the library of The HDF Group, reads the values that were written to files.
func TestH5pyReads(t *testing.T) {
	dir := t.TempDir()
	var args []string
	for _, n := range counts {
		path := filepath.Join(dir, fmt.Sprint(n))
		if err := os.WriteFile(path, makeFile(t, n), 0o666); err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
	}
	readback.Python(t, "h5py", `
import sys, h5py, numpy as np
def name(i): return '%x|%d é' % (i * 7919 % 1000, i) + '-' * (i % 13)
for path in sys.argv[1:]:
    n = int(path.split('/')[-1])
    f = h5py.File(path)
    assert dict(f.attrs) == {'model': 'esm2', 'größe': '3'}, dict(f.attrs)
    assert len(f) == n + 1 and set(f) == {'inner', *map(name, range(n))}
    for i in range(0, n, 1 if n < 1000 else 97):
        d = f[name(i)]
        want = np.float32(i) + np.arange(3, dtype='f4') / np.float32(7)
        assert d.dtype == '<f4' and d.shape == (1, 3) and (d[0] == want).all(), (i, d[0], want)
        assert dict(d.attrs) == {'original_id': 'id ' + name(i)}, dict(d.attrs)
    g = f['inner']
    assert g['texts'].asstr()[:].tolist() == ['', 'a', 'eight by', '0123456789' * 9000, 'é\n', '']
    assert g['half'].dtype == '<f2' and g['half'][:].tolist() == [1, 65504]
    assert g['integers'].dtype == '<i4' and g['integers'][:].tolist() == [[1, -1]]
    assert g['double'][0] == np.pi and g['empty'].shape == (0, 3) and g['empty'][:].size == 0
    assert dict(g.attrs) == {'note': ''}
`, args...)
}

// TestReadsH5py checks that a Reader reads a file that h5py has written with its default settings, except for a
// compressed array, which must be an ErrUnsupported.
func TestReadsH5py(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.h5")
	readback.Python(t, "h5py", `
import sys, h5py, numpy as np
with h5py.File(sys.argv[1], 'w') as f:
    f.attrs['number'] = 3
    for i in range(300):
        d = f.create_dataset('P%05d' % i, data=np.full(4, i, 'f2'))
        d.attrs['original_id'] = 'id %d' % i
        d.attrs['fixed'] = np.bytes_('x')
        for j in range(9): d.attrs['more%d' % j] = 'm' * j
    f.create_dataset('squeezed', data=np.zeros((100, 4), 'f4'), compression='gzip')
`, path)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	root, err := r.Object(r.Root)
	if err != nil {
		t.Fatal(err)
	}
	links, err := r.Links(root)
	if err != nil || len(links) != 301 {
		t.Fatalf("%d links: %v", len(links), err)
	}
	for i, l := range links[:300] {
		o, err := r.Object(l.Object)
		if err != nil {
			t.Fatal(err)
		}
		values, err := io.ReadAll(o.Values)
		if want := (Attribute{"original_id", fmt.Sprintf("id %d", i)}); err != nil || o.Type != Float16 || len(values) != 8 || o.Attributes[0] != want || len(o.Attributes) != 10 {
			t.Fatalf("%s: %v, %v, %v, %v", l.Name, o.Type, len(values), o.Attributes, err)
		}
	}
	if _, err := r.Object(links[300].Object); !errors.Is(err, ErrUnsupported) {
		t.Errorf("compressed array: %v", err)
	}
}

func TestNamesAreChecked(t *testing.T) {
	var l Links
	for _, name := range []string{"", ".", "a/b", "/", "a\x00"} {
		if err := l.Add(name, 0); !errors.Is(err, ErrName) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if err := errors.Join(l.Add("b", 1), l.Add("a", 2), l.Add("b", 3)); err != nil {
		t.Fatal(err)
	}
	w, _ := NewWriter(&memory{})
	if _, err := w.Group(&l); !errors.Is(err, ErrDuplicate) || !strings.Contains(err.Error(), `"b"`) {
		t.Errorf("two links of one name: %v", err)
	}
}

// FuzzReader reads damaged files and up to 20 arrays in them. Reading must end without a panic, and no array may be
// larger than the file.
func FuzzReader(f *testing.F) {
	var small memory
	w, err := NewWriter(&small)
	if err != nil {
		f.Fatal(err)
	}
	var links Links
	a, err := w.Array(Float32, []int{1, 3}, values(1), Attribute{"original_id", "id"})
	if err != nil {
		f.Fatal(err)
	}
	if err := links.Add("a", a); err != nil {
		f.Fatal(err)
	}
	root, err := w.Group(&links)
	if err := errors.Join(err, w.Close(root)); err != nil {
		f.Fatal(err)
	}
	f.Add(small.Bytes())
	f.Fuzz(func(t *testing.T, content []byte) {
		r, err := Open(bytes.NewReader(content), int64(len(content)))
		if err != nil {
			return
		}
		o, err := r.Object(r.Root)
		if err != nil || !o.IsGroup() {
			return
		}
		links, _ := r.Links(o)
		for _, l := range links[:min(len(links), 20)] {
			if o, err := r.Object(l.Object); err == nil && !o.IsGroup() {
				if n, err := io.Copy(io.Discard, o.Values); err != nil || n > int64(len(content)) {
					t.Errorf("%d values of a file of %d bytes: %v", n, len(content), err)
				}
			}
		}
	})
}
