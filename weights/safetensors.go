package weights

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// maxHeader is the longest header that the safetensors format allows.
const maxHeader = 100_000_000

// ErrTruncated is what errors wrap when a file ends before what it announces.
var ErrTruncated = errors.New("the file is cut short")

// OpenSafetensors opens one safetensors file under its stored names. Its header is checked whole before it returns:
// tensors must fill the file without holes or overlaps. Errors name the file; a file that ends early wraps
// ErrTruncated.
func OpenSafetensors(path string) (*File, error) {
	return openWith(path, func(m *mappedFile, f format) (*File, error) {
		if f == formatZip {
			return nil, fmt.Errorf("%s is a zip archive (a PyTorch checkpoint?), not a safetensors file", path)
		}
		return readSafetensors(m)
	})
}

// readSafetensors reads the header of an open safetensors file: 8 bytes of length, that much JSON, then the tensors'
// bytes.
func readSafetensors(m *mappedFile) (*File, error) {
	var prefix [8]byte
	if m.size < int64(len(prefix)) {
		return nil, fmt.Errorf("%s: %w: a safetensors file starts with 8 bytes of header length, it has %d bytes", m.path, ErrTruncated, m.size)
	}
	if _, err := m.ReadAt(prefix[:], 0); err != nil {
		return nil, fmt.Errorf("reading the header of %s: %w", m.path, err)
	}
	length := binary.LittleEndian.Uint64(prefix[:])
	if length > maxHeader {
		return nil, fmt.Errorf("%s is not a safetensors file: its header would have %d bytes", m.path, length)
	}
	start := int64(len(prefix)) + int64(length) // of the tensors' bytes
	if start > m.size {
		return nil, fmt.Errorf("%s: %w: its header has %d bytes, the whole file %d", m.path, ErrTruncated, length, m.size)
	}
	header := make([]byte, length)
	if _, err := m.ReadAt(header, int64(len(prefix))); err != nil {
		return nil, fmt.Errorf("reading the header of %s: %w", m.path, err)
	}
	entries, metadata, err := parseHeader(header)
	if err != nil {
		return nil, fmt.Errorf("%s: safetensors header: %w", m.path, err)
	}
	if err := checkLayout(entries, m.size-start); err != nil {
		return nil, fmt.Errorf("%s: %w", m.path, err)
	}
	f := &File{bytes: m, tensors: make(map[string]*Tensor, len(entries)), metadata: metadata}
	for _, e := range entries {
		var values elements = storedElements{file: m, offset: start + e.begin, size: e.end - e.begin, dtype: e.dtype}
		if e.dtype == UnknownDType {
			values = unreadable{fmt.Errorf("is stored as %q; F32, F16 and BF16 can be read", e.dtypeName)}
		}
		if f.tensors[e.name], err = newTensor(e.name, e.shape, e.dtype, values); err != nil {
			return nil, fmt.Errorf("%s: tensor %q %w", m.path, e.name, err)
		}
	}
	return f, nil
}

// entry is one tensor of a safetensors header.
type entry struct {
	name       string
	dtype      DType
	dtypeName  string
	shape      []int
	begin, end int64 // offsets after the header
}

// parseHeader reads the JSON of a safetensors header and checks each entry by itself: its offsets are in order and as
// far apart as its shape says.
func parseHeader(header []byte) (entries []entry, metadata map[string]string, err error) {
	reader := bytes.NewReader(header)
	decoder := json.NewDecoder(reader)
	err = decodeObject(decoder, func(name string) error {
		if name == "__metadata__" {
			return decoder.Decode(&metadata)
		}
		e := entry{name: name}
		var fields struct {
			DType   string  `json:"dtype"`
			Shape   []int   `json:"shape"`
			Offsets []int64 `json:"data_offsets"`
		}
		if err := decoder.Decode(&fields); err != nil {
			return err
		}
		if fields.Shape == nil {
			return errors.New("has no shape")
		}
		if len(fields.Offsets) != 2 {
			return fmt.Errorf("has %d data_offsets, not 2", len(fields.Offsets))
		}
		e.dtype, e.dtypeName, e.shape = dtypeNamed(fields.DType), fields.DType, fields.Shape
		e.begin, e.end = fields.Offsets[0], fields.Offsets[1]
		if e.begin < 0 || e.end < e.begin {
			return fmt.Errorf("has the impossible data_offsets %d to %d", e.begin, e.end)
		}
		count, err := elementCount(e.shape)
		if err != nil {
			return err
		}
		if want := int64(count) * int64(e.dtype.Size()); e.dtype != UnknownDType && want != e.end-e.begin {
			return fmt.Errorf("takes %d bytes as %v %v, its data_offsets leave %d", want, e.dtype, e.shape, e.end-e.begin)
		}
		entries = append(entries, e)
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	rest, err := io.ReadAll(io.MultiReader(decoder.Buffered(), reader))
	if err != nil {
		return nil, nil, err
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, nil, errors.New("goes on after its closing brace")
	}
	return entries, metadata, nil
}

// checkLayout checks that the tensors, in order of their offsets, fill the size bytes after the header exactly. It
// leaves the entries in that order.
func checkLayout(entries []entry, size int64) error {
	slices.SortFunc(entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end), cmp.Compare(a.name, b.name))
	})
	var filled int64
	previous := "the header"
	for _, e := range entries {
		switch {
		case e.begin < filled:
			return fmt.Errorf("tensor %q overlaps %s", e.name, previous)
		case e.begin > filled:
			return fmt.Errorf("%d bytes between %s and tensor %q belong to nothing", e.begin-filled, previous, e.name)
		}
		filled, previous = e.end, fmt.Sprintf("%q", e.name)
	}
	for _, e := range entries {
		if e.end > size {
			return fmt.Errorf("%w: its tensors take %d bytes, %d are there; tensor %q is the first that is incomplete", ErrTruncated, filled, size, e.name)
		}
	}
	if filled < size {
		return fmt.Errorf("%d bytes at the end belong to no tensor", size-filled)
	}
	return nil
}

// decodeObject reads a JSON object and calls value for each of its keys, with the decoder before the key's value. It
// refuses a key that appears twice, which encoding/json would let pass. Errors of value are given the key's name.
func decodeObject(decoder *json.Decoder, value func(key string) error) error {
	open, err := decoder.Token()
	if err != nil {
		return fmt.Errorf("is not JSON: %w", err)
	}
	if open != json.Delim('{') {
		return errors.New("is not a JSON object")
	}
	seen := make(map[string]bool)
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return fmt.Errorf("is not JSON: %w", err)
		}
		key, ok := token.(string)
		if !ok {
			return fmt.Errorf("has the key %v, which is not a string", token)
		}
		if seen[key] {
			return fmt.Errorf("names %q twice", key)
		}
		seen[key] = true
		if err := value(key); err != nil {
			return fmt.Errorf("%q: %w", key, err)
		}
	}
	if _, err := decoder.Token(); err != nil {
		return fmt.Errorf("is not JSON: %w", err)
	}
	return nil
}
