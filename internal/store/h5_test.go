package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"testing"

	"seqembed/internal/hdf5"
	"seqembed/internal/readback"
)

// h5Arrays returns the arrays and the attributes in an HDF5 file by the paths of their objects. An array of numbers is
// given as its shape and its values in hexadecimal, an array of strings as the quoted strings.
func h5Arrays(t *testing.T, path string) (arrays map[string]string, attributes map[string]map[string]string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	r, err := hdf5.Open(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	arrays, attributes = map[string]string{}, map[string]map[string]string{}
	var walk func(path string, a hdf5.Address)
	walk = func(path string, a hdf5.Address) {
		o, err := r.Object(a)
		if err != nil {
			t.Fatal(err)
		}
		attributes[path] = map[string]string{}
		for _, a := range o.Attributes {
			attributes[path][a.Name] = a.Value
		}
		if o.IsGroup() {
			links, err := r.Links(o)
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range links {
				walk(path+"/"+l.Name, l.Object)
			}
			return
		}
		content, err := io.ReadAll(o.Values)
		if err != nil {
			t.Fatal(err)
		}
		if o.Type != hdf5.String {
			arrays[path] = fmt.Sprintf("%v%x", o.Shape, content)
			return
		}
		for ; len(content) > 0; content = content[o.Type.Size():] {
			s, err := r.String(content)
			if err != nil {
				t.Fatal(err)
			}
			arrays[path] += fmt.Sprintf("%q ", s)
		}
	}
	walk("", r.Root)
	return arrays, attributes
}

func TestH5HoldsOneArrayPerRecord(t *testing.T) {
	for _, c := range []struct {
		layers   []int
		poolings []Pooling
		groups   []string
	}{
		{[]int{33}, []Pooling{Mean}, []string{""}},
		{[]int{33}, []Pooling{Tokens}, []string{""}},
		{[]int{0, 33}, []Pooling{Mean, Max}, []string{"/embeddings_mean_0", "/embeddings_mean_33", "/embeddings_max_0", "/embeddings_max_33"}},
		{[]int{33}, []Pooling{Residues}, []string{"/embeddings"}}, // of DNA, whose letters are in a group of their own
	} {
		s := spec(t, H5)
		s.Columns = columnsOf(c.layers, c.poolings...)
		want, letters := map[string]string{}, c.poolings[0] == Residues
		if letters {
			s.Kind = Nucleotide
		}
		rows := makeRows(s, 300)
		for _, r := range rows {
			for i, group := range c.groups {
				shape := []int{s.rows(&r), s.Dim}
				if s.perRecord() {
					shape = shape[1:]
				}
				want[group+"/"+EscapeName(r.ID)] = fmt.Sprintf("%v%x", shape, appendFloats(nil, s.DType, r.Embeddings[i]))
			}
			if letters {
				want["/letters/"+EscapeName(r.ID)] = fmt.Sprintf("%v%x", []int{len(r.Residues), 2}, appendLetters(nil, r.Residues))
			}
		}
		got, attributes := h5Arrays(t, writeAll(t, s, rows)[0].Path)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%v: %d arrays, want %d, or other values", c.poolings, len(got), len(want))
		}
		if !reflect.DeepEqual(attributes[""], s.Meta) {
			t.Errorf("metadata %q, want %q", attributes[""], s.Meta)
		}
		for _, r := range rows {
			if id := attributes[c.groups[0]+"/"+EscapeName(r.ID)]["original_id"]; id != r.ID {
				t.Errorf("original_id %.40q, want %.40q", id, r.ID)
			}
		}
	}
}

func TestH5MatrixHoldsAllRecords(t *testing.T) {
	for _, count := range []int{0, 1, 300} {
		s := spec(t, H5, 0, 33)
		s.Matrix = true
		rows := makeRows(s, count)
		want, values, ids := map[string]string{}, map[int][]byte{}, ""
		for _, r := range rows {
			ids += fmt.Sprintf("%q ", r.ID)
			for i, e := range r.Embeddings {
				values[i] = appendFloats(values[i], s.DType, e)
			}
		}
		if count > 0 {
			want["/ids"] = ids
		}
		want["/embeddings_0"] = fmt.Sprintf("%v%x", []int{count, s.Dim}, values[0])
		want["/embeddings_33"] = fmt.Sprintf("%v%x", []int{count, s.Dim}, values[1])
		got, attributes := h5Arrays(t, writeAll(t, s, rows)[0].Path)
		if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(attributes[""], s.Meta) {
			t.Errorf("%d records: other arrays, or metadata %q", count, attributes[""])
		}
	}
	s := spec(t, H5)
	s.Matrix, s.Columns = true, columnsOf([]int{33}, Tokens)
	_, err := Create(s)
	wantError(t, err, "a row for each record")
}

// TestH5FindsDuplicates checks that Commit returns an error for two records with the same id, whose arrays would have
// the same name.
func TestH5FindsDuplicates(t *testing.T) {
	s := spec(t, H5, 33)
	rows := makeRows(s, 20)
	w, err := Create(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range append(rows, rows[17]) {
		if err := w.Write(r); err != nil {
			t.Fatal(err)
		}
	}
	_, err = w.Commit()
	wantError(t, err, s.Paths()[0], rows[17].ID)
	if !errors.Is(err, hdf5.ErrDuplicate) {
		t.Errorf("%v is not ErrDuplicate", err)
	}
	if left := filesIn(t, s.Dir); left != nil {
		t.Errorf("left %q", left)
	}
}

func TestH5pyReadsH5(t *testing.T) {
	one, several, tokens, matrix, halves := spec(t, H5, 33), spec(t, H5, 0, 33), spec(t, H5), spec(t, H5, 33), spec(t, H5, 33)
	tokens.Columns = columnsOf([]int{33}, Tokens)
	matrix.Matrix = true
	halves.DType = FP16
	var paths []string
	for _, s := range []Spec{one, halves, several, tokens, matrix} {
		paths = append(paths, writeAll(t, s, plainRows(s, readBackRows))[0].Path)
	}
	checkLines(t, readback.Python(t, "h5py", `
import sys, h5py
one, halves, several, tokens, matrix = map(h5py.File, sys.argv[1:])
for f in one, halves:
    for key in f:  # sorted, as the ids are
        print('"%s"\t%s' % (f[key].attrs['original_id'], f[key][:].astype('<f4').tobytes().hex()))
    print('end')
ids = matrix['ids'].asstr()[:].tolist()
assert one[ids[0]].dtype == '<f4' and halves[ids[0]].dtype == '<f2'
assert one.attrs['model'] == 'esm2-8m' and one.attrs['revision'] == '"quoted" / ünïcode'
assert ids == list(one) and (matrix['embeddings'][7] == one[ids[7]][:]).all() and matrix['embeddings'].shape == (200, 24)
assert set(several) == {'embeddings_0', 'embeddings_33'} and list(several['embeddings_0']) == ids
assert [tokens[i].shape for i in ids] == [(n % 4, 24) for n in range(200)]
`, paths...), one, halves)
}
