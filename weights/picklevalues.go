package weights

import (
	"errors"
	"fmt"
)

// maxDepth is how deeply the containers of a pickle may be nested.
const maxDepth = 256

// The containers of a pickle. They are pointers so that a value which appears in several places, or is filled after it
// was stored, stays one value.
type (
	pickleTuple     struct{ items []any }
	pickleList      struct{ items []any }
	pickleDict      struct{ items map[any]any }
	pickleNamespace struct{ attributes *pickleDict }
)

func newPickleDict() *pickleDict { return &pickleDict{items: make(map[any]any)} }

// set refuses keys that Go cannot hash and keys that are there already.
func (d *pickleDict) set(key, value any) error {
	switch key.(type) {
	case string, int64, float64, bool, nil:
	default:
		return fmt.Errorf("a dict key is a %s", kind(key))
	}
	if _, taken := d.items[key]; taken {
		return fmt.Errorf("the dict key %#v appears twice", key)
	}
	d.items[key] = value
	return nil
}

// kind names the Python type of a value, for messages.
func kind(v any) string {
	switch v.(type) {
	case nil:
		return "None"
	case bool:
		return "bool"
	case int64:
		return "int"
	case float64:
		return "float"
	case string:
		return "str"
	case *pickleTuple:
		return "tuple"
	case *pickleList, []any:
		return "list"
	case *pickleDict, map[string]any, map[any]any:
		return "dict"
	case *pickleNamespace:
		return "Namespace"
	case *Tensor:
		return "tensor"
	case storageClass:
		return "storage class"
	case *storage:
		return "storage"
	case callable:
		return "function"
	}
	return fmt.Sprintf("%T", v)
}

// flattener turns the containers of a pickle into plain Go values, each of them once.
type flattener struct {
	done map[any]any // by container
}

// inProgress marks a container that is still being turned.
type inProgress struct{}

// plainValue returns v as map[string]any (map[any]any where a key is not a string), []any, string, int64, float64,
// bool, nil and *Tensor.
func plainValue(v any) (any, error) {
	f := flattener{done: make(map[any]any)}
	return f.plain(v, 0)
}

func (f flattener) plain(v any, depth int) (any, error) {
	switch v.(type) {
	case nil, bool, int64, float64, string, *Tensor:
		return v, nil
	case *pickleTuple, *pickleList, *pickleDict, *pickleNamespace:
	default:
		return nil, fmt.Errorf("the pickle holds a bare %s", kind(v))
	}
	if depth == maxDepth {
		return nil, fmt.Errorf("the pickle is nested more than %d deep", maxDepth)
	}
	if known, ok := f.done[v]; ok {
		if known == (inProgress{}) {
			return nil, errors.New("the pickle holds a value that contains itself")
		}
		return known, nil
	}
	f.done[v] = inProgress{}
	flat, err := f.container(v, depth+1)
	f.done[v] = flat
	return flat, err
}

func (f flattener) container(v any, depth int) (any, error) {
	switch v := v.(type) {
	case *pickleTuple:
		return f.list(v.items, depth)
	case *pickleList:
		return f.list(v.items, depth)
	case *pickleDict:
		return f.dict(v, depth)
	case *pickleNamespace:
		if v.attributes == nil {
			return map[string]any{}, nil
		}
		return f.dict(v.attributes, depth)
	}
	return nil, fmt.Errorf("the pickle holds a bare %s", kind(v))
}

func (f flattener) list(items []any, depth int) (any, error) {
	flat := make([]any, len(items))
	for i, item := range items {
		var err error
		if flat[i], err = f.plain(item, depth); err != nil {
			return nil, err
		}
	}
	return flat, nil
}

func (f flattener) dict(d *pickleDict, depth int) (any, error) {
	named := make(map[string]any, len(d.items))
	for key, item := range d.items {
		flat, err := f.plain(item, depth)
		if err != nil {
			return nil, err
		}
		name, ok := key.(string)
		if !ok {
			return f.mixedDict(d, depth)
		}
		named[name] = flat
	}
	return named, nil
}

func (f flattener) mixedDict(d *pickleDict, depth int) (any, error) {
	mixed := make(map[any]any, len(d.items))
	for key, item := range d.items {
		flat, err := f.plain(item, depth)
		if err != nil {
			return nil, err
		}
		mixed[key] = flat
	}
	return mixed, nil
}
