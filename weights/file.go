package weights

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
)

// File is one checkpoint file with its tensors under the names that it stores.
type File struct {
	bytes    *mappedFile
	tensors  map[string]*Tensor
	metadata map[string]string
	values   map[string]any // beside a state dict that lies under "model"
}

// Names returns the stored names, sorted.
func (f *File) Names() []string { return slices.Sorted(maps.Keys(f.tensors)) }

// Tensor returns the tensor that is stored under name.
func (f *File) Tensor(name string) (*Tensor, bool) {
	t, ok := f.tensors[name]
	return t, ok
}

// Metadata returns the free text of a safetensors header, nil where there is none.
func (f *File) Metadata() map[string]string { return maps.Clone(f.metadata) }

// Float32s decodes a whole F32, F16 or BF16 tensor, row-major. Errors name the file and the tensor.
func (f *File) Float32s(name string) ([]float32, error) {
	t, err := f.lookup(name)
	if err != nil {
		return nil, err
	}
	values, err := t.Float32s()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.bytes.path, err)
	}
	return values, nil
}

// Int32s reads a whole I32 tensor, row-major. Errors name the file and the tensor.
func (f *File) Int32s(name string) ([]int32, error) {
	t, err := f.lookup(name)
	if err != nil {
		return nil, err
	}
	stored, ok := t.values.(storedElements)
	if !ok || t.dtype != I32 {
		return nil, fmt.Errorf("%s: tensor %q is stored as %v, not as I32", f.bytes.path, name, t.dtype)
	}
	values := make([]int32, 0, t.count)
	err = f.bytes.visit(stored.offset, stored.size, func(chunk []byte) {
		for ; len(chunk) >= 4; chunk = chunk[4:] {
			values = append(values, int32(binary.LittleEndian.Uint32(chunk)))
		}
	})
	if err != nil {
		return nil, fmt.Errorf("tensor %q: %w", name, err)
	}
	return values, nil
}

func (f *File) lookup(name string) (*Tensor, error) {
	t, ok := f.tensors[name]
	if !ok {
		return nil, fmt.Errorf("%s holds no tensor %q", f.bytes.path, name)
	}
	return t, nil
}

// Close releases the file; its tensors can no longer be read.
func (f *File) Close() error { return f.bytes.Close() }

// format is what a file looks like from its first bytes.
type format int

const (
	formatUnknown format = iota
	formatSafetensors
	formatZip
	formatLegacyTorch
	formatHTML
	formatLFSPointer
)

// legacyTorchMagic starts the files that torch.save wrote before version 1.6: a pickle of the number
// 0x1950a86a20f9469cfc6c.
var legacyTorchMagic = []byte{0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19}

// formatOf recognises a file by its contents: the names of cached files say nothing, and a failed download often leaves
// a web page under the right name.
func formatOf(head []byte) format {
	text := bytes.ToLower(bytes.TrimLeft(head, "\ufeff \t\r\n"))
	switch {
	case bytes.HasPrefix(head, []byte("PK\x03\x04")):
		return formatZip
	case bytes.HasPrefix(head, legacyTorchMagic):
		return formatLegacyTorch
	case bytes.HasPrefix(text, []byte("version https://git-lfs")):
		return formatLFSPointer
	case bytes.HasPrefix(text, []byte("<!doctype")), bytes.HasPrefix(text, []byte("<html")), bytes.HasPrefix(text, []byte("<?xml")):
		return formatHTML
	case len(head) > 8 && head[8] == '{':
		return formatSafetensors
	}
	return formatUnknown
}

// formatError says in a sentence what a file is that cannot be a checkpoint, nil for the others.
func formatError(f format) error {
	switch f {
	case formatLegacyTorch:
		return errors.New("is in PyTorch's format from before version 1.6, which is not read; load and save it again with a newer PyTorch")
	case formatLFSPointer:
		return errors.New("is a Git LFS pointer, not the checkpoint itself; `git lfs pull` in its folder fetches it")
	case formatHTML:
		return errors.New("is a web page, not a checkpoint; the download went wrong")
	}
	return nil
}

// openFile opens a single checkpoint file of either format.
func openFile(path string) (*File, error) {
	return openWith(path, func(m *mappedFile, f format) (*File, error) {
		if f == formatZip {
			return readTorch(m)
		}
		if f == formatUnknown && filepath.Ext(path) != ".safetensors" {
			return nil, fmt.Errorf("%s is neither a safetensors file nor a PyTorch zip archive", path)
		}
		return readSafetensors(m)
	})
}

// openWith opens path, recognises its format and lets read do the rest; the file is closed again where that fails.
func openWith[T any](path string, read func(*mappedFile, format) (T, error)) (T, error) {
	var none T
	m, err := openMapped(path)
	if err != nil {
		return none, err
	}
	head := make([]byte, min(m.size, 64))
	if _, err := m.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return none, errors.Join(err, m.Close())
	}
	f := formatOf(head)
	if err := formatError(f); err != nil {
		return none, errors.Join(fmt.Errorf("%s %w", path, err), m.Close())
	}
	opened, err := read(m, f)
	if err != nil {
		return none, errors.Join(err, m.Close())
	}
	return opened, nil
}
