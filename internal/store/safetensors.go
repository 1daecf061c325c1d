package store

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
)

// Safetensors is one tensor, with the ids in its metadata. With an embedding per token it is one tensor per record.
const Safetensors Format = "safetensors"

// maxSafetensorsHeader is the largest header, in bytes, that the reference reader accepts.
const maxSafetensorsHeader = 100_000_000

// metadataKey is the header key of the metadata, which no tensor can have as its name.
const metadataKey = "__metadata__"

// safetensorsEncoder writes one tensor [records, dim] per column. With embeddings per residue or token it writes one
// tensor [rows, dim] for each record and column, named after the record's id and, if there are several layers, the
// layer. Beside the residues of DNA there is a tensor [rows, 2] of their letters.
//
// The header stands at the start of the file but contains all ids, so it is written last. The tensors are first written
// from offset 0 of the temporary file. At the end they are moved up by the length of the header, which needs no second
// copy on disk. The header is kept in memory until then. The format limits it to 100 MB, enough for some millions of
// ids.
type safetensorsEncoder struct {
	spec    *Spec
	file    *atomicFile
	columns []*atomicFile // rows of each column: file, then scratch files; per token, only file
	suffix  []string      // per token: suffix of tensor names for each column, and that of letters if there are any
	rows    int
	offset  int64    // per token: number of bytes in the tensors written so far
	ids     jsonText // JSON list of ids, escaped for a JSON string, without brackets and quotes
	entries jsonText // per token: header entries of the tensors
	names   recordNames
	limit   int // maximum size of the header in bytes
	floats  floatWriter
}

func newSafetensorsEncoder(s *Spec, files *fileSet) (encoder, error) {
	if _, ok := s.Meta["ids"]; ok {
		return nil, fmt.Errorf("output of %q: the metadata key \"ids\" is reserved for the list of ids", s.Base)
	}
	path := s.Paths()[0]
	f, err := files.create(path, true)
	if err != nil {
		return nil, err
	}
	e := &safetensorsEncoder{spec: s, file: f, columns: []*atomicFile{f}, limit: maxSafetensorsHeader,
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
	if e.rows > 0 {
		e.ids.raw(",")
	}
	e.ids.quotedTwice(r.ID)
	e.rows++
	if err := e.addValues(r); err != nil {
		return err
	}
	const slack = 4096 // covers brackets, padding and the entries of pooled tensors
	if e.ids.Len()+e.entries.Len()+slack > e.limit {
		return fmt.Errorf("%w: the ids of %d records exceed the %d bytes that readers of safetensors accept as header; use parquet or npy",
			ErrFormat, e.rows, e.limit)
	}
	return nil
}

// addValues writes the values of a row and, unless the rows are records, the entries of its tensors.
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
	e.addEntry(name, dtype, e.spec.DType.size(), rows, e.spec.Dim)
}

// addEntry adds the entry of the next tensor, [rows, columns] of values with the given size in bytes, to the header.
func (e *safetensorsEncoder) addEntry(name, dtype string, size, rows, columns int) {
	end := e.offset + int64(rows)*int64(columns)*int64(size)
	e.entries.raw(",")
	e.entries.quoted(name)
	e.entries.raw(`:{"dtype":"` + dtype + `","shape":[` + strconv.Itoa(rows) + "," + strconv.Itoa(columns) + `],"data_offsets":[` +
		strconv.FormatInt(e.offset, 10) + "," + strconv.FormatInt(end, 10) + "]}")
	e.offset = end
}

func (e *safetensorsEncoder) finish() error {
	if e.spec.perRecord() {
		for _, name := range e.spec.columnNames("embeddings") {
			e.addEmbedding(name, e.rows)
		}
	}
	header := e.header()
	if len(header) > e.limit {
		return fmt.Errorf("%w: the header takes %d bytes, but readers of safetensors accept at most %d; use parquet or npy",
			ErrFormat, len(header), e.limit)
	}
	body := e.file.size
	if err := moveUp(e.file, int64(len(header))); err != nil {
		return err
	}
	if err := e.file.writeAt(header, 0); err != nil {
		return err
	}
	rest := &offsetWriter{e.file, int64(len(header)) + body}
	for _, column := range e.columns[1:] {
		if err := column.copyTo(rest); err != nil {
			return err
		}
	}
	return nil
}

// header returns the length and the JSON of the header, padded to a multiple of 8, the alignment of tensors.
func (e *safetensorsEncoder) header() []byte {
	var h jsonText
	h.raw("\x00\x00\x00\x00\x00\x00\x00\x00{\"" + metadataKey + `":{"ids":"[`)
	h.Write(e.ids.Bytes())
	h.raw(`]"`)
	for _, key := range slices.Sorted(maps.Keys(e.spec.Meta)) {
		h.raw(",")
		h.quoted(key)
		h.raw(":")
		h.quoted(e.spec.Meta[key])
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
