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
	pickleList      struct{ items []any }
	pickleTuple     struct{ pickleList }
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

// container is one of the pointers above.
type container interface {
	// flatten returns the container, whose items are depth containers deep, as a plain Go value.
	flatten(f flattener, depth int) (any, error)
}

// flattener turns the containers of a pickle into plain Go values, each of them once: it has the value by container.
type flattener map[container]any

// inProgress marks a container that is still being turned.
type inProgress struct{}

// plain returns v, which is depth containers deep, as a plain Go value.
func (f flattener) plain(v any, depth int) (any, error) {
	switch v := v.(type) {
	case nil, bool, int64, float64, string, *Tensor:
		return v, nil
	case container:
		if known, ok := f[v]; ok {
			if known == (inProgress{}) {
				return nil, errors.New("the pickle holds a value that contains itself")
			}
			return known, nil
		}
		if depth == maxDepth {
			return nil, fmt.Errorf("the pickle is nested more than %d deep", maxDepth)
		}
		f[v] = inProgress{}
		flat, err := v.flatten(f, depth+1)
		f[v] = flat
		return flat, err
	}
	return nil, fmt.Errorf("the pickle holds a bare %s", kind(v))
}

// flatten returns a []any.
func (l *pickleList) flatten(f flattener, depth int) (any, error) {
	flat := make([]any, len(l.items))
	for i, item := range l.items {
		var err error
		if flat[i], err = f.plain(item, depth); err != nil {
			return nil, err
		}
	}
	return flat, nil
}

// flatten returns a map[string]any, or a map[any]any where a key is no string.
func (d *pickleDict) flatten(f flattener, depth int) (any, error) {
	named, mixed := make(map[string]any, len(d.items)), make(map[any]any, len(d.items))
	for key, item := range d.items {
		flat, err := f.plain(item, depth)
		if err != nil {
			return nil, err
		}
		mixed[key] = flat
		if name, ok := key.(string); ok {
			named[name] = flat
		}
	}
	if len(named) < len(mixed) {
		return mixed, nil
	}
	return named, nil
}

// flatten returns a map[string]any.
func (n *pickleNamespace) flatten(f flattener, depth int) (any, error) {
	if n.attributes == nil {
		return map[string]any{}, nil
	}
	return n.attributes.flatten(f, depth)
}
