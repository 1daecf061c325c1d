package weights

import (
	"archive/zip"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// torchArchive is an open zip file that torch.save has written. One folder contains the pickle data.pkl, the storages
// data/0, data/1, … and, in files of newer PyTorch versions, byteorder. None of them is compressed.
type torchArchive struct {
	file    *file
	zip     *zip.Reader
	folder  string
	entries map[string]*zip.File
	used    map[string]bool // names of the entries that checksum has added to file.sections
}

// openArchive reads the zip directory and finds the folder with the pickle data.pkl. It returns an error if there is no
// such folder or several, or if the byte order of the storages is not little-endian.
func openArchive(f *file) (*torchArchive, error) {
	reader, err := zip.NewReader(f, f.size)
	if errors.Is(err, zip.ErrFormat) {
		return nil, fmt.Errorf("%w: the directory at the end of the zip archive is missing or damaged", ErrTruncated)
	} else if err != nil {
		return nil, fmt.Errorf("zip archive: %w", err)
	}
	a := &torchArchive{file: f, zip: reader, entries: make(map[string]*zip.File, len(reader.File)),
		used: make(map[string]bool)}
	for _, entry := range reader.File {
		if a.entries[entry.Name] != nil {
			return nil, fmt.Errorf("zip archive: two entries are called %q", entry.Name)
		}
		a.entries[entry.Name] = entry
		if folder, name := path.Split(entry.Name); name == "data.pkl" && strings.Count(folder, "/") == 1 {
			if a.folder != "" {
				return nil, fmt.Errorf("zip archive: both %q and %q hold a data.pkl", a.folder, folder)
			}
			a.folder = folder
		}
	}
	if a.folder == "" {
		return nil, errors.New("a zip archive without data.pkl, so not one that torch.save wrote")
	}
	if a.entries[a.folder+"byteorder"] != nil {
		order, err := a.read("byteorder", 16)
		if err != nil {
			return nil, err
		}
		if string(order) != "little" {
			return nil, fmt.Errorf("its byte order is %q; only little is read", order)
		}
	}
	return a, nil
}

// entry returns an entry of the archive's folder and the offset of its bytes, which must be inside the file.
func (a *torchArchive) entry(name string) (entry *zip.File, offset int64, err error) {
	entry = a.entries[a.folder+name]
	if entry == nil {
		return nil, 0, fmt.Errorf("the zip archive has no %.200q", a.folder+name)
	}
	if entry.Method != zip.Store || entry.CompressedSize64 != entry.UncompressedSize64 {
		return nil, 0, fmt.Errorf("%q is compressed, which torch.save never does", entry.Name)
	}
	if offset, err = entry.DataOffset(); err != nil {
		return nil, 0, fmt.Errorf("%q in the zip archive: %w", entry.Name, err)
	}
	if offset < 0 || offset > a.file.size || entry.UncompressedSize64 > uint64(a.file.size-offset) {
		return nil, 0, fmt.Errorf("%w: %q has %d bytes, %d are there", ErrTruncated, entry.Name, entry.UncompressedSize64, a.file.size-offset)
	}
	return entry, offset, nil
}

// checksum adds the bytes of a storage and their checksum to the file's sections, unless the storage is empty or has
// been added before. As in archive/zip, a checksum of 0 means that there is none.
func (a *torchArchive) checksum(entry *zip.File, offset int64) {
	if !a.used[entry.Name] && entry.CRC32 != 0 && entry.UncompressedSize64 > 0 {
		a.used[entry.Name] = true
		a.file.sections = append(a.file.sections, section{entry.Name, offset, offset + int64(entry.UncompressedSize64), entry.CRC32})
	}
}

// read returns the content of an entry and checks its CRC-32. It returns an error if the entry has more than limit
// bytes.
func (a *torchArchive) read(name string, limit uint64) ([]byte, error) {
	entry, _, err := a.entry(name)
	if err != nil {
		return nil, err
	}
	if entry.UncompressedSize64 > limit {
		return nil, fmt.Errorf("%q has %d bytes, more than %d: %w", entry.Name, entry.UncompressedSize64, limit, ErrTooLarge)
	}
	b, err := fs.ReadFile(a.zip, entry.Name)
	if err != nil {
		return nil, fmt.Errorf("%q in the zip archive: %w", entry.Name, err)
	}
	return b, nil
}

// readPickle executes the pickle of a PyTorch archive and returns its value. It also sorts f.sections, the storages
// with their checksums, and refuses an archive in which they overlap.
func readPickle(f *file) (any, error) {
	a, err := openArchive(f)
	if err != nil {
		return nil, err
	}
	code, err := a.read("data.pkl", maxPickle)
	if err != nil {
		return nil, err
	}
	value, err := unpickle(code, a)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(f.sections, func(a, b section) int { return cmp.Compare(a.from, b.from) })
	for i, s := range f.sections {
		if i > 0 && s.from < f.sections[i-1].to {
			return nil, fmt.Errorf("zip archive: %q and %q overlap", f.sections[i-1].name, s.name)
		}
	}
	return value, nil
}

// LoadPickle reads a file written by torch.save. It returns the value in the file and a function that closes the file.
// After the file is closed, tensors can no longer be read. The value, and each value in it, is a string, int64,
// float64, bool, nil, *Tensor, tuple []any, list *[]any, dict map[any]any or argparse.Namespace map[string]any. For any
// other class the error names the class and wraps ErrForbidden.
func LoadPickle(path string) (value any, closeFile func() error, err error) {
	f, err := openFile(path)
	if err != nil {
		return nil, nil, err
	}
	if !f.isZip() {
		err = errors.New("not a PyTorch zip archive")
	} else {
		value, err = readPickle(f)
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return value, f.Close, nil
}

// stateKeys are the keys under which training programs store a state dict beside other values.
var stateKeys = [...]string{"model", "state_dict", "model_state_dict", "module"}

// readTorch reads the tensors of a PyTorch checkpoint. The checkpoint is a state dict, or a dict that contains the
// state dict under one of stateKeys, and other values. readTorch returns the tensors of the state dict, and these other
// values.
func readTorch(f *file) (tensors map[string]*Tensor, values map[any]any, err error) {
	value, err := readPickle(f)
	if err != nil {
		return nil, nil, err
	}
	state, ok := value.(map[any]any)
	if !ok {
		return nil, nil, fmt.Errorf("holds a %s at its top level, not a dict of tensors", kind(value))
	}
	for _, key := range stateKeys {
		if model, ok := state[key].(map[any]any); ok {
			delete(state, key)
			state, values = model, state
			break
		}
	}
	tensors = make(map[string]*Tensor, len(state))
	for key, v := range state {
		name, ok := key.(string)
		t, isTensor := v.(*Tensor)
		if !ok || !isTensor {
			return nil, nil, fmt.Errorf("%.80q is a %s, not a tensor: this is not a state dict", fmt.Sprint(key), kind(v))
		}
		tensors[name] = t.named(name)
	}
	return tensors, values, nil
}
