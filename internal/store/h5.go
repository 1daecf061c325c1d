package store

import (
	"errors"
	"maps"
	"slices"

	"seqembed/internal/hdf5"
)

// H5 is an HDF5 file with one array per record and column, as UniProt and bio_embeddings publish embeddings. With
// Spec.Matrix it has one array of all records per column, and an array of their ids.
const H5 Format = "h5"

func checkH5(s *Spec) error {
	if s.Matrix && slices.ContainsFunc(s.Columns, func(c Column) bool { return !c.Pooling.PerRecord() }) {
		return errors.New("the one matrix of format h5 has a row for each record: it takes no pooling per residue or token")
	}
	return nil
}

// hdf5File implements hdf5.File on a file under construction.
type hdf5File struct{ *atomicFile }

func (f hdf5File) WriteAt(p []byte, offset int64) (int, error) {
	if err := f.writeAt(p, offset); err != nil {
		return 0, err
	}
	return len(p), nil
}

// hdf5 returns the hdf5.Type of values of type d.
func (d DType) hdf5() hdf5.Type {
	if d == FP16 {
		return hdf5.Float16
	}
	return hdf5.Float32
}

func newH5Encoder(s *Spec, files *fileSet) (encoder, error) {
	path := s.Paths()[0]
	f, err := files.create(path, true)
	if err != nil {
		return nil, err
	}
	w, err := hdf5.NewWriter(hdf5File{f})
	if err != nil {
		return nil, err
	}
	if s.Matrix {
		return newH5MatrixEncoder(s, files, w)
	}
	e := &h5Encoder{spec: s, w: w, names: s.columnNames(h5Embeddings)}
	if s.withLetters() {
		e.names = append(e.names, h5Letters)
	}
	e.groups = make([]hdf5.Links, len(e.names))
	return e, nil
}

// Names of groups, or arrays, in an HDF5 file, and of the attribute with the id of a record.
const (
	h5Embeddings = "embeddings"
	h5IDs        = "ids"
	h5Letters    = "letters"
	h5OriginalID = "original_id"
)

// h5Encoder writes an array for each record and column. The shape of an array is [dim], or with embeddings per residue
// or token [rows, dim]. The name of an array is the record's id, escaped by EscapeName because HDF5 takes slashes for
// separators; the attribute original_id of the array is the id itself.
//
// The arrays of a single column are in the root group. If there are several columns, each column has a group. With
// residues of DNA each column, even a single one, has a group, and one more group has the first and last letters of the
// residues.
//
// The names stay in memory until the end, with some 20 bytes more for each array. Two records with the same id cause an
// error only at the end, when the names are sorted.
type h5Encoder struct {
	spec   *Spec
	w      *hdf5.Writer
	names  []string
	groups []hdf5.Links // one element per group, with the links to its arrays; a single element is the root group
	bytes  []byte       // buffer for one array
}

func (e *h5Encoder) add(r *Row) error {
	rows := e.spec.rows(r)
	for i, values := range r.Embeddings {
		shape := []int{rows, e.spec.Dim}
		if e.spec.perRecord() {
			shape = shape[1:]
		}
		e.bytes = appendFloats(e.bytes[:0], e.spec.DType, values)
		if err := e.array(i, r.ID, e.spec.DType.hdf5(), shape); err != nil {
			return err
		}
	}
	if !e.spec.withLetters() {
		return nil
	}
	e.bytes = appendLetters(e.bytes[:0], r.Residues)
	return e.array(len(r.Embeddings), r.ID, hdf5.Int32, []int{rows, 2})
}

// array writes an array with the content of e.bytes, and adds it to e.groups[group] under the record's id.
func (e *h5Encoder) array(group int, id string, t hdf5.Type, shape []int) error {
	a, err := e.w.Array(t, shape, e.bytes, hdf5.Attribute{Name: h5OriginalID, Value: id})
	if err != nil {
		return err
	}
	return e.groups[group].Add(EscapeName(id), a)
}

func (e *h5Encoder) finish() error {
	root := &e.groups[0]
	if len(e.groups) > 1 {
		root = new(hdf5.Links)
		for i := range e.groups {
			group, err := e.w.Group(&e.groups[i])
			if err != nil {
				return err
			}
			if err := root.Add(e.names[i], group); err != nil {
				return err
			}
		}
	}
	return closeH5(e.w, root, e.spec)
}

// closeH5 completes an HDF5 file: it writes the root group, which has Spec.Meta as its attributes, and the superblock.
func closeH5(w *hdf5.Writer, root *hdf5.Links, s *Spec) error {
	var attributes []hdf5.Attribute
	for _, key := range slices.Sorted(maps.Keys(s.Meta)) {
		attributes = append(attributes, hdf5.Attribute{Name: ValidText(key), Value: ValidText(s.Meta[key])})
	}
	group, err := w.Group(root, attributes...)
	if err != nil {
		return err
	}
	return w.Close(group)
}

// h5MatrixEncoder writes an array of shape [records, dim] for each column, and an array of all ids. The ids stay in
// memory until the end.
type h5MatrixEncoder struct {
	spec    *Spec
	w       *hdf5.Writer
	first   hdf5.Address  // address of the values of the first column, which are written immediately
	columns []*atomicFile // scratch files with the values of the other columns
	ids     []string
	floats  floatWriter
}

func newH5MatrixEncoder(s *Spec, files *fileSet, w *hdf5.Writer) (encoder, error) {
	e := &h5MatrixEncoder{spec: s, w: w, floats: floatWriter{dtype: s.DType}}
	var err error
	if e.first, err = w.Align(); err != nil {
		return nil, err
	}
	for range len(s.Columns) - 1 {
		scratch, err := files.createScratch(s.Paths()[0])
		if err != nil {
			return nil, err
		}
		e.columns = append(e.columns, scratch)
	}
	return e, nil
}

func (e *h5MatrixEncoder) add(r *Row) error {
	if err := e.floats.write(e.w, r.Embeddings[0]); err != nil {
		return err
	}
	for i, values := range r.Embeddings[1:] {
		if err := e.floats.write(e.columns[i], values); err != nil {
			return err
		}
	}
	e.ids = append(e.ids, r.ID)
	return nil
}

func (e *h5MatrixEncoder) finish() error {
	var root hdf5.Links
	for i, name := range e.spec.columnNames(h5Embeddings) {
		at := e.first
		if i > 0 {
			var err error
			if at, err = e.w.Align(); err != nil {
				return err
			}
			if err := e.columns[i-1].copyTo(e.w); err != nil {
				return err
			}
		}
		a, err := e.w.ArrayAt(at, e.spec.DType.hdf5(), []int{len(e.ids), e.spec.Dim})
		if err != nil {
			return err
		}
		if err := root.Add(name, a); err != nil {
			return err
		}
	}
	var refs []byte
	for _, id := range e.ids {
		ref, err := e.w.String(id)
		if err != nil {
			return err
		}
		refs = append(refs, ref[:]...)
	}
	a, err := e.w.Array(hdf5.String, []int{len(e.ids)}, refs)
	if err != nil {
		return err
	}
	if err := root.Add(h5IDs, a); err != nil {
		return err
	}
	return closeH5(e.w, &root, e.spec)
}
