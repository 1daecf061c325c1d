package weights

import (
	"errors"
	"fmt"
)

// storageClasses maps the storage classes of the Python module torch to their number formats.
var storageClasses = map[string]storageClass{"FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
	"DoubleStorage": "F64", "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8",
	"ByteStorage": "U8", "BoolStorage": "BOOL"}

// storageClass is a class such as torch.FloatStorage, represented by its number format.
type storageClass dtype

// storage is an entry of a PyTorch zip archive that holds the elements of one or more tensors.
type storage struct {
	key    string
	dtype  dtype
	offset int64 // offset in the file of the storage's first byte
	count  int64 // number of elements
}

// global returns the class or function module.name of Python if tensors need it: a callable or a storageClass. For any
// other name the error wraps ErrForbidden.
func (a *torchArchive) global(module, name string) (any, error) {
	switch full := module + "." + name; full {
	case "collections.OrderedDict":
		return withoutArguments(full, func() any { return map[any]any{} }), nil
	case "argparse.Namespace":
		return withoutArguments(full, func() any { return map[string]any{} }), nil
	case "torch._utils._rebuild_tensor_v2":
		return callable(a.rebuildTensor), nil
	case "torch._utils._rebuild_parameter":
		return callable(rebuildParameter), nil
	default:
		if class, ok := storageClasses[name]; ok && module == "torch" {
			return class, nil
		}
		return nil, fmt.Errorf("pickle refers to %q: %w", full, ErrForbidden)
	}
}

func withoutArguments(name string, make func() any) callable {
	return func(args []any) (any, error) {
		if len(args) != 0 {
			return nil, fmt.Errorf("%s is made with %d arguments, not without", name, len(args))
		}
		return make(), nil
	}
}

// rebuildParameter implements torch._utils._rebuild_parameter(data, requires_grad, backward_hooks).
func rebuildParameter(args []any) (any, error) {
	if len(args) == 3 {
		if t, ok := args[0].(*Tensor); ok {
			return t, nil
		}
	}
	return nil, errors.New("the arguments of _rebuild_parameter are not a tensor and two more")
}

// persistent returns the storage that a pickle refers to by a persistent id. The id is a tuple: ("storage", class, key,
// device, number of elements). persistent ignores the device, which is where the tensor was when it was saved.
func (a *torchArchive) persistent(id any) (any, error) {
	tuple, ok := id.([]any)
	if !ok || len(tuple) != 5 || tuple[0] != "storage" {
		return nil, errors.New("a persistent id does not describe a storage")
	}
	class, okClass := tuple[1].(storageClass)
	key, okKey := tuple[2].(string)
	count, okCount := tuple[4].(int64)
	if !okClass || !okKey || !okCount || count < 0 || count > maxElements {
		return nil, errors.New("a persistent id does not describe a storage")
	}
	entry, offset, err := a.entry("data/" + key)
	if err != nil {
		return nil, err
	}
	if want := uint64(count) * uint64(dtypeSizes[dtype(class)]); entry.UncompressedSize64 != want {
		return nil, fmt.Errorf("%q has %d bytes; %d elements of %s take %d", entry.Name, entry.UncompressedSize64, count, class, want)
	}
	a.checksum(entry, offset)
	return &storage{key: key, dtype: dtype(class), offset: offset, count: count}, nil
}

// rebuildTensor implements torch._utils._rebuild_tensor_v2(storage, storage_offset, size, stride, requires_grad,
// backward_hooks) and its variant with metadata. It ignores the arguments after stride.
func (a *torchArchive) rebuildTensor(args []any) (any, error) {
	if len(args) != 6 && len(args) != 7 {
		return nil, fmt.Errorf("_rebuild_tensor_v2 has %d arguments, not 6 or 7", len(args))
	}
	s, okStorage := args[0].(*storage)
	first, okFirst := args[1].(int64)
	shape, okShape := intTuple(args[2])
	stride, okStride := intTuple(args[3])
	if !okStorage || !okFirst || !okShape || !okStride || len(shape) != len(stride) {
		return nil, errors.New("the arguments of _rebuild_tensor_v2 are not a storage, an offset, a size and a stride")
	}
	name := "storage " + s.key
	t, err := newTensor(name, shape)
	if err != nil {
		return nil, fmt.Errorf("a tensor of %s %w", name, err)
	}
	if first < 0 || first > s.count || int64(t.count) > s.count-first {
		return nil, fmt.Errorf("a tensor of %s has %d elements from element %d on; the storage has %d", name, t.count, first, s.count)
	}
	if contiguous(shape, stride) {
		t.store(a.file, s.offset+first*int64(dtypeSizes[s.dtype]), s.dtype)
	} else {
		t.unreadable = fmt.Errorf("is not contiguous (size %v, stride %v); save it after .contiguous()", shape, stride)
	}
	return t, nil
}

// intTuple returns the numbers of a tuple. It returns false unless v is a tuple of at most maxRank integers, none of
// them larger than maxElements in absolute value.
func intTuple(v any) ([]int, bool) {
	tuple, ok := v.([]any)
	if !ok || len(tuple) > maxRank {
		return nil, false
	}
	numbers := make([]int, len(tuple))
	for i, item := range tuple {
		n, ok := item.(int64)
		if !ok || n < -maxElements || n > maxElements {
			return nil, false
		}
		numbers[i] = int(n)
	}
	return numbers, true
}

// contiguous reports whether elements with these strides are in row-major order. The stride of a dimension of length 1
// does not matter. Nor do the strides of a dimension of length 0 and of the dimensions before it.
func contiguous(shape, stride []int) bool {
	expected := 1
	for i := len(shape) - 1; i >= 0; i-- {
		if shape[i] == 0 {
			return true
		}
		if shape[i] != 1 && stride[i] != expected {
			return false
		}
		expected *= shape[i]
	}
	return true
}
