package main

import (
	"archive/zip"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"seqembed/internal/cancel"
	"seqembed/internal/store"
	"seqembed/weights"
)

// recordKeys are the keys under which a .pt file of fair-esm's extract.py holds the embeddings of its one record, by
// layer.
var recordKeys = []string{"representations", "mean_representations", "bos_representations"}

// openAnyTable opens an output file as a table. PyTorch files in layouts that store.OpenTable does not read are opened
// by openTorchTable.
func openAnyTable(ctx context.Context, path string) (*store.Table, error) {
	t, err := store.OpenTable(path)
	if !errors.Is(err, store.ErrForeignPt) {
		return t, err
	}
	return openTorchTable(ctx, path)
}

// torchTable is the content of a PyTorch file as a table.
type torchTable struct {
	*store.Table
	ids    []string
	values []func(record int) ([]float32, error) // by column: a function that returns the values of a record
}

// openTorchTable opens a PyTorch file in a layout of VirNucPro or of fair-esm's extract.py. The pickle that describes
// the tensors must not exceed the limits of package weights.
func openTorchTable(ctx context.Context, path string) (*store.Table, error) {
	if err := checkZip(ctx, path); err != nil {
		return nil, fmt.Errorf("%s %w: %w", path, store.ErrNoTable, err)
	}
	value, closeFile, err := weights.LoadPickle(path)
	if err != nil {
		return nil, err
	}
	t := torchTable{Table: &store.Table{Format: store.VirNucPro, DType: store.FP32, IDs: true, Close: closeFile}}
	object, _ := value.(map[any]any)
	switch {
	case object["label"] != nil:
		t.Format = store.Pt
		err = t.openRecord(object)
	case object["ids"] != nil:
		err = t.openMerged(object)
	default:
		err = t.openList(object)
	}
	if err != nil {
		closeFile()
		return nil, fmt.Errorf("%s %w: %w", path, store.ErrNoTable, err)
	}
	t.Read = t.read
	return t.Table, nil
}

// checkZip reads a zip file and returns an error if an entry does not match its checksum, or if ctx ends.
func checkZip(ctx context.Context, path string) error {
	archive, err := zip.OpenReader(path)
	if err != nil {
		return err
	}
	defer archive.Close()
	for _, entry := range archive.File {
		content, err := entry.Open()
		if err != nil {
			return fmt.Errorf("%s: %w", entry.Name, err)
		}
		_, err = io.Copy(io.Discard, cancel.Reader(ctx, content))
		content.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", entry.Name, err)
		}
	}
	return nil
}

func (t *torchTable) read(yield func(*store.Row) error) error {
	for i, id := range t.ids {
		r := store.Row{ID: id}
		for _, column := range t.values {
			values, err := column(i)
			if err != nil {
				return err
			}
			if len(values)%t.Dim != 0 {
				return fmt.Errorf("record %q has %d values, and an earlier one %d", id, len(values), t.Dim)
			}
			r.Embeddings = append(r.Embeddings, values)
		}
		if err := yield(&r); err != nil {
			return err
		}
	}
	return nil
}

// add adds a column with a name. The function values returns the column's values of a record. The column has the type
// and the last dimension of example, which is a tensor of such values.
func (t *torchTable) add(name string, example *weights.Tensor, values func(record int) ([]float32, error)) error {
	shape := example.Shape()
	if len(shape) < 1 || len(shape) > 2 || shape[len(shape)-1] == 0 {
		return fmt.Errorf("%s has the shape %v", name, shape)
	}
	dtype, known := map[string]store.DType{"F32": store.FP32, "F16": store.FP16}[example.DType()]
	if !known {
		return fmt.Errorf("%s has values of type %s, not float16 or float32", name, cmp.Or(example.DType(), "unknown"))
	}
	if dim := shape[len(shape)-1]; len(t.values) == 0 {
		t.Dim, t.DType = dim, dtype
	} else if t.Dim != dim || t.DType != dtype {
		return fmt.Errorf("%s has rows of %d %s, other tensors of %d %s", name, dim, dtype, t.Dim, t.DType)
	}
	t.Names, t.Columns = append(t.Names, name), append(t.Columns, store.Column{})
	t.values = append(t.values, values)
	return nil
}

// openRecord opens a file in the layout of fair-esm's extract.py, which has one record. Keys that hold no embeddings,
// such as contacts, are left out.
func (t *torchTable) openRecord(object map[any]any) error {
	label, ok := object["label"].(string)
	if !ok {
		return errors.New("its label is no text")
	}
	t.ids = []string{label}
	for _, key := range recordKeys {
		layers, _ := object[key].(map[any]any)
		var numbers []int64
		for layer, value := range layers {
			n, isNumber := layer.(int64)
			if _, isTensor := value.(*weights.Tensor); !isNumber || !isTensor {
				return fmt.Errorf("%s is no dict of tensors by layer", key)
			}
			numbers = append(numbers, n)
		}
		slices.Sort(numbers)
		for _, n := range numbers {
			tensor := layers[n].(*weights.Tensor)
			if err := t.add(fmt.Sprintf("%s of layer %d", key, n), tensor, func(int) ([]float32, error) { return tensor.Float32s() }); err != nil {
				return err
			}
		}
	}
	if len(t.values) == 0 {
		return errors.New("it has no representations")
	}
	return nil
}

// openMerged opens a merged file of VirNucPro, which has a matrix with a row for each record.
func (t *torchTable) openMerged(object map[any]any) error {
	matrix, ok := object["data"].(*weights.Tensor)
	if !ok || t.setIDs(object["ids"]) != nil || len(matrix.Shape()) != 2 || matrix.Shape()[0] != len(t.ids) {
		return errors.New("its data are no matrix with a row for each of its ids")
	}
	return t.add("embeddings", matrix, func(record int) ([]float32, error) {
		row := make([]float32, t.Dim)
		return row, matrix.ReadRows(row, record)
	})
}

// openList opens a file of VirNucPro for one alphabet: a list with a tensor for each protein, or with a dict for each
// record of DNA.
func (t *torchTable) openList(object map[any]any) error {
	ids := object["proteins"]
	if ids == nil {
		ids = object["nucleotide"]
	}
	data, ok := object["data"].(*[]any)
	if !ok || t.setIDs(ids) != nil || len(t.ids) != len(*data) || len(*data) == 0 {
		return errors.New("neither a record of extract.py nor a file of VirNucPro")
	}
	if first, isTensor := (*data)[0].(*weights.Tensor); isTensor {
		return t.add("embeddings", first, func(record int) ([]float32, error) {
			tensor, ok := (*data)[record].(*weights.Tensor)
			if !ok || !slices.Equal(tensor.Shape(), first.Shape()) || tensor.DType() != first.DType() {
				return nil, fmt.Errorf("record %q is no tensor like the first", t.ids[record])
			}
			return tensor.Float32s()
		})
	}
	values := func(record int) ([]float32, error) { return meanOf((*data)[record], t.ids[record]) }
	first, err := values(0)
	if err == nil {
		t.Dim, t.Names, t.Columns, t.values = len(first), []string{"embeddings"}, make([]store.Column, 1), append(t.values, values)
	}
	return err
}

// meanOf returns the values of a record of DNA as VirNucPro stores it: {'label': id, 'mean_representation': [float,
// …]}.
func meanOf(record any, id string) ([]float32, error) {
	dict, _ := record.(map[any]any)
	list, _ := dict["mean_representation"].(*[]any)
	if list == nil || len(*list) == 0 || dict["label"] != id {
		return nil, fmt.Errorf("record %q has no mean_representation", id)
	}
	values := make([]float32, len(*list))
	for i, v := range *list {
		f, ok := v.(float64)
		if !ok {
			return nil, fmt.Errorf("record %q has a value that is no float", id)
		}
		values[i] = float32(f)
	}
	return values, nil
}

// setIDs sets the ids of the records from a list of strings in a pickle.
func (t *torchTable) setIDs(list any) error {
	items, ok := list.(*[]any)
	if !ok {
		return errors.New("no list of ids")
	}
	for _, item := range *items {
		id, ok := item.(string)
		if !ok {
			return errors.New("an id is no text")
		}
		t.ids = append(t.ids, id)
	}
	return nil
}
