package store

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"seqembed/internal/hdf5"
)

// h5File is an HDF5 file that is open for reading.
type h5File struct{ *hdf5.Reader }

// readH5 opens an HDF5 file of any layout of the format H5: with an array for each record, in the root group or in a
// group for each column, or with one matrix for each column. Records come in the order in which they were written.
func readH5(f *os.File, size int64) (*Table, error) {
	r, err := hdf5.Open(f, size)
	if err != nil {
		return nil, err
	}
	h := h5File{r}
	root, err := h.Object(r.Root)
	if err != nil {
		return nil, err
	}
	links, err := h.Links(root)
	if err != nil {
		return nil, err
	}
	t := &Table{Format: H5, IDs: true, Meta: map[string]string{}}
	for _, a := range root.Attributes {
		t.Meta[a.Name] = a.Value
	}
	var ids *hdf5.Object
	var columns []*hdf5.Object
	var names []string
	records := [][]hdf5.Link{links} // links to the arrays of each column, one per record
	for _, l := range links {
		grouped := l.Name == h5IDs || l.Name == h5Letters || strings.HasPrefix(l.Name, h5Embeddings)
		if !grouped || len(links) > maxH5Columns {
			columns, ids = nil, nil // the links of the root group are records, named after their ids
			break
		}
		o, err := h.Object(l.Object)
		switch {
		case err != nil:
			return nil, err
		case l.Name == h5IDs && o.Type == hdf5.String:
			ids = o
		case l.Name != h5Letters:
			names, columns = append(names, l.Name), append(columns, o)
		}
	}
	if ids != nil {
		return t, h.readMatrix(t, ids, columns, names)
	}
	if len(columns) > 0 && columns[0].IsGroup() {
		records = nil
		for _, o := range columns {
			list, err := h.Links(o)
			if err != nil {
				return nil, err
			}
			records = append(records, list)
		}
	} else {
		names = []string{h5Embeddings}
	}
	return t, h.readRecords(t, records, names)
}

// maxH5Columns is the maximum number of links in a root group whose links are columns. If a root group has more links,
// they are records, whatever their names.
const maxH5Columns = 1000

// floats sets t.DType and t.Dim from the array o in the first call. It returns an error if the array of a later call
// has another type or dimension.
func (t *Table) floats(o *hdf5.Object) error {
	if o.IsGroup() {
		return errors.New("a group among the arrays of records")
	}
	if o.Type != hdf5.Float16 && o.Type != hdf5.Float32 || len(o.Shape) < 1 || len(o.Shape) > 2 {
		return fmt.Errorf("an object that is no vector or matrix of float16 or float32, but %v of shape %v", o.Type, o.Shape)
	}
	d, dim := FP32, o.Shape[len(o.Shape)-1]
	if o.Type == hdf5.Float16 {
		d = FP16
	}
	if t.Dim == 0 {
		t.DType, t.Dim = d, dim
	}
	if d != t.DType || dim != t.Dim {
		return fmt.Errorf("arrays of %d %s and of %d %s values", t.Dim, t.DType, dim, d)
	}
	return nil
}

// readMatrix sets t.Read for a file with a matrix [records, dim] for each column and an array of ids.
func (h h5File) readMatrix(t *Table, ids *hdf5.Object, columns []*hdf5.Object, names []string) error {
	t.setColumns(names, Mean)
	if len(ids.Shape) != 1 {
		return fmt.Errorf("ids in an array of shape %v", ids.Shape)
	}
	for _, o := range columns {
		if err := t.floats(o); err != nil {
			return err
		}
		if len(o.Shape) != 2 || o.Shape[0] != ids.Shape[0] {
			return fmt.Errorf("%d ids, and a matrix of shape %v", ids.Shape[0], o.Shape)
		}
	}
	t.Read = func(yield func(*Row) error) error {
		var matrices []*matrix
		for _, o := range columns {
			matrices = append(matrices, newMatrix(o.Values, t.DType, t.Dim))
		}
		ref := make([]byte, ids.Type.Size())
		for range ids.Shape[0] {
			row := &Row{Embeddings: make([][]float32, len(matrices))}
			if _, err := io.ReadFull(ids.Values, ref); err != nil {
				return noEOF(err)
			}
			var err error
			if row.ID, err = h.String(ref); err != nil {
				return err
			}
			for i, m := range matrices {
				if row.Embeddings[i], err = m.next(1); err != nil {
					return err
				}
			}
			if err := yield(row); err != nil {
				return err
			}
		}
		return nil
	}
	return nil
}

// readRecords sets t.Read for a file with an array for each record and column. records has, for each column, the links
// to its arrays in the order of the links' names.
func (h h5File) readRecords(t *Table, records [][]hdf5.Link, names []string) error {
	pooling := Mean
	if len(records[0]) > 0 {
		o, err := h.Object(records[0][0].Object)
		if err != nil {
			return err
		}
		if err := t.floats(o); err != nil {
			return err
		}
		if len(o.Shape) == 2 {
			pooling = Tokens
		}
	} else {
		t.Dim, t.DType = 1, FP32 // any valid values, because a file without records tells neither
	}
	t.setColumns(names, pooling)
	order := make([]int, len(records[0]))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(records[0][a].Object, records[0][b].Object) })
	t.Read = func(yield func(*Row) error) error {
		for _, i := range order {
			row := &Row{}
			for _, column := range records {
				if i >= len(column) || column[i].Name != records[0][i].Name {
					return fmt.Errorf("the groups of the columns do not all have %q", records[0][i].Name)
				}
				o, err := h.Object(column[i].Object)
				if err == nil {
					err = t.floats(o)
				}
				if err != nil {
					return fmt.Errorf("%q: %w", column[i].Name, err)
				}
				row.ID = column[i].Name
				for _, a := range o.Attributes {
					if a.Name == h5OriginalID {
						row.ID = a.Value
					}
				}
				if len(o.Shape) == 2 {
					row.Tokens = o.Shape[0]
				}
				content, err := io.ReadAll(o.Values)
				if err != nil {
					return err
				}
				row.Embeddings = append(row.Embeddings, appendValues(nil, t.DType, content))
			}
			if err := yield(row); err != nil {
				return err
			}
		}
		return nil
	}
	return nil
}
