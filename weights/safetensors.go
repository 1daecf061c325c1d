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

// maxHeader is the limit, in bytes, that the safetensors format sets for the header.
const maxHeader = 100_000_000

// ErrTruncated is wrapped by the error for a file, or a pickle in it, that ends earlier than its content requires.
var ErrTruncated = errors.New("the file is cut short")

// readSafetensors reads the header of a safetensors file. The file consists of the length of the header in 8 bytes, the
// header as JSON, and the bytes of the tensors without gaps or overlaps.
func readSafetensors(f *file) (map[string]*Tensor, error) {
	var prefix [8]byte
	if f.size < int64(len(prefix)) {
		return nil, fmt.Errorf("%w: a safetensors file starts with 8 bytes of header length, it has %d bytes", ErrTruncated, f.size)
	}
	if err := f.readAt(prefix[:], 0); err != nil {
		return nil, err
	}
	length := binary.LittleEndian.Uint64(prefix[:])
	if length > maxHeader {
		return nil, fmt.Errorf("not a safetensors file: its header would have %d bytes", length)
	}
	start := int64(len(prefix)) + int64(length) // offset of the tensors' bytes
	if start > f.size {
		return nil, fmt.Errorf("%w: its header has %d bytes, the whole file %d", ErrTruncated, length, f.size)
	}
	header := make([]byte, length)
	if err := f.readAt(header, int64(len(prefix))); err != nil {
		return nil, err
	}
	entries, err := parseHeader(header)
	if err != nil {
		return nil, fmt.Errorf("safetensors header: %w", err)
	}
	if err := checkLayout(entries, f.size-start); err != nil {
		return nil, err
	}
	tensors := make(map[string]*Tensor, len(entries))
	for _, e := range entries {
		e.store(f, start+e.begin, e.dtype)
		tensors[e.name] = e.Tensor
	}
	return tensors, nil
}

// entry is one tensor of a safetensors header.
type entry struct {
	*Tensor
	dtype      dtype
	begin, end int64 // offsets from the end of the header, in bytes
}

// parseHeader parses the JSON of a safetensors header and checks each entry: its end must not be before its beginning
// and, if the number format is known, the bytes between them must be as many as the tensor takes.
func parseHeader(header []byte) (entries []entry, err error) {
	reader := bytes.NewReader(header)
	decoder := json.NewDecoder(reader)
	err = decodeObject(decoder, func(name string) error {
		if name == "__metadata__" {
			return decoder.Decode(&map[string]string{})
		}
		var fields struct {
			DType   dtype   `json:"dtype"`
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
		t, err := newTensor(name, fields.Shape)
		if err != nil {
			return err
		}
		e := entry{t, fields.DType, fields.Offsets[0], fields.Offsets[1]}
		if e.begin < 0 || e.end < e.begin {
			return fmt.Errorf("has the impossible data_offsets %d to %d", e.begin, e.end)
		}
		size, known := dtypeSizes[e.dtype]
		if want := int64(t.count) * int64(size); known && want != e.end-e.begin {
			return fmt.Errorf("takes %d bytes as %s %v, its data_offsets leave %d", want, e.dtype, t.shape, e.end-e.begin)
		}
		entries = append(entries, e)
		return nil
	})
	if err != nil {
		return nil, err
	}
	rest, err := io.ReadAll(io.MultiReader(decoder.Buffered(), reader))
	if err == nil && len(bytes.TrimSpace(rest)) > 0 {
		err = errors.New("goes on after its closing brace")
	}
	return entries, err
}

// checkLayout checks that the tensors, in the order of their offsets, exactly fill the bytes after the header. The
// argument size is the number of these bytes.
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
	if filled < size {
		return fmt.Errorf("%d bytes at the end belong to no tensor", size-filled)
	}
	if i := slices.IndexFunc(entries, func(e entry) bool { return e.end > size }); i >= 0 {
		return fmt.Errorf("%w: its tensors take %d bytes, %d are there; tensor %q is the first that is incomplete",
			ErrTruncated, filled, size, entries[i].name)
	}
	return nil
}

// decodeObject reads a JSON object. For each key it calls the function value, which must read the key's value from the
// decoder. It refuses a repeated key, which encoding/json would accept. An error of this function is wrapped with the
// name of the key.
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
		key, _ := token.(string) // always a string, as encoding/json has checked
		if seen[key] {
			return fmt.Errorf("names %.200q twice", key)
		}
		seen[key] = true
		if err := value(key); err != nil {
			return fmt.Errorf("%.200q: %w", key, err)
		}
	}
	if _, err := decoder.Token(); err != nil {
		return fmt.Errorf("is not JSON: %w", err)
	}
	return nil
}
