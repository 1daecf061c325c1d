package store

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Safetensors is a file with one tensor for each column. The ids are in its metadata or, if there are many, in two more
// tensors. A file of residues or tokens has one tensor for each record and column instead, named after the record's id.
const Safetensors Format = "safetensors"

// Names under which a safetensors file has its ids. tensorIDs is a key of the metadata, with a JSON list as its value.
// If there are many ids, tensorIDs is instead a tensor U8 of the bytes of all ids, one after the other, and
// tensorIDOffsets a tensor I64 [records+1]: its elements i and i+1 are the offsets in bytes of the beginning and the
// end of id i.
const (
	tensorIDs       = "ids"
	tensorIDOffsets = "ids_offsets"
)

// manyIDs is the number of records from which on a safetensors file with one tensor per column has its ids in tensors,
// not in its metadata, so that the header stays small.
const manyIDs = 100_000

// maxSafetensorsHeader is the largest header, in bytes, that the reference reader accepts.
const maxSafetensorsHeader = 100_000_000

// metadataKey is the key of the metadata in the header of a safetensors file. No tensor can have this name.
const metadataKey = "__metadata__"

// safetensorsEncoder writes one tensor [records, dim] per column. With embeddings per residue or token it writes one
// tensor [rows, dim] for each record and column, named after the record's id and, if there are several columns, the
// layer of the column. A token of DNA may cover several letters, so with residues of DNA each record has one more
// tensor [rows, 2], with the positions in the record of the first and the last letter of each row.
//
// The header stands at the start of the file, but its size is known only at the end. So the values are first written
// from offset 0 of the temporary file on. At the end they are moved within the file, without a second copy on disk, to
// make room for the header. Until then the header is in memory. Readers accept a header of at most 100 MB.
//
// With one tensor per column, the ids of fewer than manyIDs records are in the header if they fit. Otherwise the ids go
// to scratch files, which become two tensors. With one tensor per record, the id is the name of the tensor and has to
// be in the header, so about half a million records fill the header.
type safetensorsEncoder struct {
	spec  *Spec
	files *fileSet
	file  *atomicFile
	// columns has the file with the rows of each column: the field file for the first column, scratch files for the
	// others. With one tensor per record, all rows are in the field file.
	columns   []*atomicFile
	suffix    []string // endings of the names of a record's tensors: one per column, and one for letters if there are any
	rows      int
	offset    int64       // number of bytes in the tensors that have header entries
	ids       jsonText    // JSON list of ids, without brackets, escaped for a JSON string; empty if there are many ids
	idText    *atomicFile // content of the tensor tensorIDs if there are many ids, else nil
	idOffsets *atomicFile // content of the tensor tensorIDOffsets if there are many ids, else nil
	entries   jsonText    // header entries of the tensors, in JSON
	names     recordNames
	many      int // number of records from which on the ids are in tensors
	limit     int // maximum size of the header in bytes
	floats    floatWriter
}

func newSafetensorsEncoder(s *Spec, files *fileSet) (encoder, error) {
	if _, ok := s.Meta[tensorIDs]; ok {
		return nil, fmt.Errorf("output of %q: the metadata key \"ids\" is reserved for the list of ids", s.Base)
	}
	path := s.Paths()[0]
	f, err := files.create(path, true)
	if err != nil {
		return nil, err
	}
	e := &safetensorsEncoder{spec: s, files: files, file: f, columns: []*atomicFile{f}, limit: maxSafetensorsHeader, many: manyIDs,
		floats: floatWriter{dtype: s.DType}}
	e.suffix = s.suffixes("_", "_")
	if s.withLetters() {
		e.suffix = append(e.suffix, lettersSuffix)
	}
	if !s.perRecord() {
		e.names = recordNames{}
		return e, nil
	}
	for range len(s.Columns) - 1 {
		scratch, err := files.createScratch(path)
		if err != nil {
			return nil, err
		}
		e.columns = append(e.columns, scratch)
	}
	return e, nil
}

// tensors returns the names of a record's tensors.
func (e *safetensorsEncoder) tensors(r *Row) (names []string) {
	for _, suffix := range e.suffix {
		names = append(names, r.ID+suffix)
	}
	return names
}

func (e *safetensorsEncoder) check(r *Row) error {
	if e.spec.perRecord() {
		return nil
	}
	names := e.tensors(r)
	if slices.Contains(names, metadataKey) {
		return &recordError{r.ID, fmt.Errorf("%w: safetensors reserves this name", ErrFormat)}
	}
	return e.names.check(r.ID, names...)
}

func (e *safetensorsEncoder) add(r *Row) error {
	if err := e.addValues(r); err != nil {
		return err
	}
	return e.addID(r.ID)
}

// addID adds an id to the list in the header, or, if there are many ids, to the scratch files.
func (e *safetensorsEncoder) addID(id string) error {
	e.rows++
	if e.idText != nil {
		return e.appendID(id)
	}
	if e.rows > 1 {
		e.ids.raw(",")
	}
	e.ids.quotedTwice(id)
	const slack = 4096 // bytes for brackets, padding and the entries of one tensor per column
	full := e.ids.Len()+e.entries.Len()+slack > e.limit
	switch {
	case e.spec.perRecord() && (full || e.rows == e.many):
		return e.moveIDs()
	case full:
		return fmt.Errorf("%w: the ids of %d records exceed the %d bytes that readers of safetensors accept as header; use parquet or npy",
			ErrFormat, e.rows, e.limit)
	}
	return nil
}

// moveIDs moves the ids from the list in the header to two scratch files, which become tensors.
func (e *safetensorsEncoder) moveIDs() (err error) {
	if e.idText, err = e.files.createScratch(e.file.final); err != nil {
		return err
	}
	if e.idOffsets, err = e.files.createScratch(e.file.final); err != nil {
		return err
	}
	if _, err := e.idOffsets.Write(make([]byte, 8)); err != nil {
		return err
	}
	var list string
	var ids []string
	// Decoding cannot fail, because the encoder itself has written the JSON.
	_ = json.Unmarshal([]byte(`"[`+e.ids.String()+`]"`), &list)
	_ = json.Unmarshal([]byte(list), &ids)
	e.ids = jsonText{}
	for _, id := range ids {
		if err := e.appendID(id); err != nil {
			return err
		}
	}
	return nil
}

// appendID adds an id to the two scratch files for ids: its bytes to one, and the offset of its end to the other.
func (e *safetensorsEncoder) appendID(id string) error {
	if _, err := e.idText.WriteString(id); err != nil {
		return err
	}
	_, err := e.idOffsets.Write(binary.LittleEndian.AppendUint64(nil, uint64(e.idText.size)))
	return err
}

// addValues writes the values of a row. If the rows of the output are residues or tokens, it also adds the entries of
// the record's tensors to the header.
func (e *safetensorsEncoder) addValues(r *Row) error {
	if e.spec.perRecord() {
		for i, values := range r.Embeddings {
			if err := e.floats.write(e.columns[i], values); err != nil {
				return err
			}
		}
		return nil
	}
	names, rows := e.tensors(r), e.spec.rows(r)
	e.names.add(names...)
	for i, values := range r.Embeddings {
		e.addEmbedding(names[i], rows)
		if err := e.floats.write(e.file, values); err != nil {
			return err
		}
	}
	if !e.spec.withLetters() {
		return nil
	}
	e.addEntry(names[len(names)-1], "I32", 4, rows, 2)
	_, err := e.file.Write(appendLetters(nil, r.Residues))
	return err
}

// addEmbedding adds the entry of the next tensor, [rows, dim], to the header.
func (e *safetensorsEncoder) addEmbedding(name string, rows int) {
	dtype := "F32"
	if e.spec.DType == FP16 {
		dtype = "F16"
	}
	e.addEntry(name, dtype, int64(e.spec.DType.size()), rows, e.spec.Dim)
}

// addEntry adds the entry of the next tensor to the header. The argument size is the number of bytes in each value.
func (e *safetensorsEncoder) addEntry(name, dtype string, size int64, shape ...int) {
	dims := make([]string, len(shape))
	for i, n := range shape {
		size *= int64(n)
		dims[i] = strconv.Itoa(n)
	}
	end := e.offset + size
	e.entries.raw(",")
	e.entries.quoted(name)
	e.entries.raw(`:{"dtype":"` + dtype + `","shape":[` + strings.Join(dims, ",") + `],"data_offsets":[` +
		strconv.FormatInt(e.offset, 10) + "," + strconv.FormatInt(end, 10) + "]}")
	e.offset = end
}

// finish puts the header before the values. If the ids are in tensors, their offsets, of 8 bytes each, precede the
// embeddings, and their bytes follow the embeddings: PyTorch needs every tensor at a multiple of the size of its
// values.
func (e *safetensorsEncoder) finish() error {
	before := int64(0) // number of bytes that precede the embeddings
	if e.idText != nil {
		e.addEntry(tensorIDOffsets, "I64", 8, e.rows+1)
		before = e.idOffsets.size
	}
	if e.spec.perRecord() {
		for _, name := range e.spec.columnNames("embeddings") {
			e.addEmbedding(name, e.rows)
		}
	}
	if e.idText != nil {
		e.addEntry(tensorIDs, "U8", 1, int(e.idText.size))
	}
	header := e.header()
	if len(header) > e.limit {
		return fmt.Errorf("%w: the header takes %d bytes, but readers of safetensors accept at most %d; use parquet or npy",
			ErrFormat, len(header), e.limit)
	}
	before += int64(len(header))
	rest := &offsetWriter{e.file, before + e.file.size}
	if err := moveUp(e.file, before); err != nil {
		return err
	}
	if err := e.file.writeAt(header, 0); err != nil {
		return err
	}
	parts := e.columns[1:]
	if e.idText != nil {
		if err := e.idOffsets.copyTo(&offsetWriter{e.file, int64(len(header))}); err != nil {
			return err
		}
		parts = append(parts, e.idText)
	}
	for _, part := range parts {
		if err := part.copyTo(rest); err != nil {
			return err
		}
	}
	return nil
}

// header returns the beginning of the file: 8 bytes with the length of the JSON, and the JSON, padded to a multiple of
// 8 bytes, the alignment of tensors.
func (e *safetensorsEncoder) header() []byte {
	var h jsonText
	h.raw("\x00\x00\x00\x00\x00\x00\x00\x00{\"" + metadataKey + `":{`)
	separator := ""
	if e.idText == nil {
		h.raw(`"` + tensorIDs + `":"[`)
		h.Write(e.ids.Bytes())
		h.raw(`]"`)
		separator = ","
	}
	for _, key := range slices.Sorted(maps.Keys(e.spec.Meta)) {
		h.raw(separator)
		h.quoted(key)
		h.raw(":")
		h.quoted(e.spec.Meta[key])
		separator = ","
	}
	h.raw("}")
	h.Write(e.entries.Bytes())
	h.raw("}")
	for h.Len()%8 != 0 {
		h.raw(" ")
	}
	header := h.Bytes()
	binary.LittleEndian.PutUint64(header, uint64(len(header)-8))
	return header
}

// moveUp moves the whole content of f up by shift bytes. It begins at the end, so that no byte is overwritten before it
// has been moved.
func moveUp(f *atomicFile, shift int64) error {
	chunk := make([]byte, bufferSize)
	for end := f.size; end > 0; {
		start := max(0, end-int64(len(chunk)))
		part := chunk[:end-start]
		if err := f.readAt(part, start); err != nil {
			return err
		}
		if err := f.writeAt(part, start+shift); err != nil {
			return err
		}
		end = start
	}
	return nil
}

// jsonText is JSON under construction.
type jsonText struct{ bytes.Buffer }

func (t *jsonText) raw(s string) { t.WriteString(s) }

// quoted appends s as a JSON string.
func (t *jsonText) quoted(s string) { t.Write(jsonString(s)) }

// quotedTwice appends s as a JSON string inside another JSON string.
func (t *jsonText) quotedTwice(s string) {
	outer := jsonString(string(jsonString(s)))
	t.Write(outer[1 : len(outer)-1])
}

func jsonString(s string) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	// Encoding a string into memory cannot fail.
	_ = enc.Encode(s)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
