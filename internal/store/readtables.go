package store

import (
	"archive/zip"
	"bufio"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// readNpz opens an .npz archive with an array for each record. The rows of the table are residues if an array with the
// letters of residues follows the first array, and tokens if not.
func readNpz(f *os.File, size int64) (*Table, error) {
	archive, err := zip.NewReader(f, size)
	if err != nil {
		return nil, err
	}
	t := &Table{Format: Npy, Dim: 1}
	t.setColumns([]string{strings.TrimSuffix(filepath.Base(f.Name()), ".npz")}, Tokens)
	t.Columns[0].Pooling = Tokens // until letters are found, even if the file name says residues
	entries := archive.File
	if len(entries) > 0 {
		if t.DType, _, t.Dim, err = npzHeader(entries[0]); err != nil {
			return nil, err
		}
	}
	if len(entries) > 1 && entries[1].Name == lettersName(entries[0]) {
		// An array that is not of floats holds letters. An array of floats would be that of another record.
		if _, _, _, err := npzHeader(entries[1]); err != nil {
			t.Columns[0].Pooling = Residues
		}
	}
	ids := openIDs(f.Name())
	t.IDs = ids.lines != nil
	t.Read = func(yield func(*Row) error) error {
		defer ids.close()
		for rest := entries; len(rest) > 0; {
			row, read, err := t.readArrays(rest)
			if err != nil {
				return err
			}
			rest = rest[read:]
			if row.ID, err = ids.next(); err != nil {
				return err
			}
			if err := yield(&row); err != nil {
				return err
			}
		}
		return ids.end()
	}
	return t, nil
}

// lettersName returns the name of the array with the first and the last letter of each residue of a record. entry is
// the array with the embeddings of that record.
func lettersName(entry *zip.File) string {
	return strings.TrimSuffix(entry.Name, ".npy") + lettersSuffix + ".npy"
}

// readArrays reads the record that begins with the first of the given entries of the archive. read is the number of
// entries that belong to the record.
func (t *Table) readArrays(entries []*zip.File) (row Row, read int, err error) {
	d, rows, dim, err := npzHeader(entries[0])
	if err == nil && (d != t.DType || dim != t.Dim) {
		err = fmt.Errorf("%s has %d %s values a row, an earlier array %d %s", entries[0].Name, dim, d, t.Dim, t.DType)
	}
	if err != nil {
		return row, 0, err
	}
	content, err := entries[0].Open()
	if err != nil {
		return row, 0, err
	}
	defer content.Close()
	_, _, _, _ = parseNpyHeader(content) // npzHeader has read the same header without an error
	m := newMatrix(content, d, dim)
	values, err := m.next(rows)
	if err == nil {
		err = readEnd(m.from)
	}
	if err != nil {
		return row, 0, fmt.Errorf("%s: %w", entries[0].Name, err)
	}
	row = Row{Tokens: rows, Embeddings: [][]float32{values}}
	if t.Columns[0].Pooling != Residues {
		return row, 1, nil
	}
	if len(entries) < 2 || entries[1].Name != lettersName(entries[0]) {
		return row, 0, fmt.Errorf("%s has no array of letters beside it", entries[0].Name)
	}
	row.Residues, err = npzLetters(entries[1], rows)
	return row, 2, err
}

// readEnd reads from an entry of a zip archive after its last value. At the end, package zip checks the CRC-32. readEnd
// returns an error if that is wrong or if there are more bytes.
func readEnd(r io.Reader) error {
	n, err := io.Copy(io.Discard, r)
	if err == nil && n > 0 {
		err = fmt.Errorf("%d bytes follow the last row", n)
	}
	return err
}

// npzLetters reads an array [rows, 2] with the first and the last letter of each row.
func npzLetters(entry *zip.File, rows int) (list []Letters, err error) {
	content, err := entry.Open()
	if err != nil {
		return nil, err
	}
	defer content.Close()
	dtype, n, two, err := parseNpyHeader(content)
	if err == nil && (dtype != npyInt32 || n != rows || two != 2) {
		err = fmt.Errorf("an array of %d times %d values of type %s, want %d times 2 of %s", n, two, dtype, rows, npyInt32)
	}
	if err == nil {
		list = make([]Letters, rows)
		err = binary.Read(content, binary.LittleEndian, list)
	}
	if err == nil {
		err = readEnd(content)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", entry.Name, noEOF(err))
	}
	return list, nil
}

// npzHeader reads the header of an array of floats in an .npz archive.
func npzHeader(entry *zip.File) (d DType, rows, dim int, err error) {
	content, err := entry.Open()
	if err != nil {
		return "", 0, 0, err
	}
	defer content.Close()
	dtype, rows, dim, err := parseNpyHeader(content)
	if err == nil {
		d, err = npyDType(dtype)
	}
	if err == nil && int64(rows)*int64(dim)*int64(d.size()) > int64(entry.UncompressedSize64) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", entry.Name, err)
	}
	return d, rows, dim, err
}

// tensorEntry is the description of a tensor in the header of a safetensors file.
type tensorEntry struct {
	DType   string   `json:"dtype"`
	Shape   []int    `json:"shape"`
	Offsets [2]int64 `json:"data_offsets"`
	name    string
}

// dtype returns the type of the tensor's values. It returns an error unless the tensor is a matrix of floats that lies
// within the body of the file. The argument body is the size of that body in bytes.
func (e tensorEntry) dtype(body int64) (DType, error) {
	d := map[string]DType{"F32": FP32, "F16": FP16}[e.DType]
	from, to := e.Offsets[0], e.Offsets[1]
	if d == "" || len(e.Shape) != 2 || e.Shape[0] < 0 || e.Shape[1] < 1 || e.Shape[1] > maxDim || from < 0 || to > body {
		return "", fmt.Errorf("tensor %q is no matrix of float16 or float32 in a body of %d bytes, but %s of shape %v in bytes %d to %d",
			e.name, body, e.DType, e.Shape, from, to)
	}
	row := int64(e.Shape[1]) * int64(d.size())
	if rows := int64(e.Shape[0]); rows > body/row || to-from != rows*row {
		return "", fmt.Errorf("tensor %q has %d rows of %d bytes in bytes %d to %d", e.name, rows, row, from, to)
	}
	return d, nil
}

// safetensorsHeader reads the header of a safetensors file. tensors are in the order of their values in the file. body
// is the rest of the file, after the header.
func safetensorsHeader(f io.ReaderAt, size int64) (tensors []tensorEntry, meta map[string]string, body *io.SectionReader, err error) {
	var prefix [8]byte
	if _, err := f.ReadAt(prefix[:], 0); err != nil {
		return nil, nil, nil, noEOF(err)
	}
	n := binary.LittleEndian.Uint64(prefix[:])
	if n > maxSafetensorsHeader || int64(n) > size-8 {
		return nil, nil, nil, fmt.Errorf("a header of %d bytes", n)
	}
	var raw map[string]json.RawMessage
	if err := json.NewDecoder(io.NewSectionReader(f, 8, int64(n))).Decode(&raw); err != nil {
		return nil, nil, nil, err
	}
	if text, ok := raw[metadataKey]; ok {
		if err := json.Unmarshal(text, &meta); err != nil {
			return nil, nil, nil, err
		}
		delete(raw, metadataKey)
	}
	for name, text := range raw {
		e := tensorEntry{name: name}
		if err := json.Unmarshal(text, &e); err != nil {
			return nil, nil, nil, err
		}
		tensors = append(tensors, e)
	}
	slices.SortFunc(tensors, func(a, b tensorEntry) int {
		return cmp.Or(cmp.Compare(a.Offsets[0], b.Offsets[0]), cmp.Compare(a.Offsets[1], b.Offsets[1]), cmp.Compare(a.name, b.name))
	})
	return tensors, meta, io.NewSectionReader(f, 8+int64(n), size-8-int64(n)), nil
}

// readSafetensors opens a safetensors file with a tensor for each column, or with one for each record.
func readSafetensors(f *os.File, size int64) (*Table, error) {
	tensors, meta, body, err := safetensorsHeader(f, size)
	if err != nil {
		return nil, err
	}
	ids, tensors, err := tensorIDList(tensors, meta, body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", tensorIDs, err)
	}
	t := &Table{Format: Safetensors, Dim: 1, IDs: true, Meta: meta}
	tensors = slices.DeleteFunc(tensors, func(e tensorEntry) bool { return e.DType == "I32" && strings.HasSuffix(e.name, lettersSuffix) })
	for i, e := range tensors {
		d, err := e.dtype(body.Size())
		if i == 0 && err == nil {
			t.DType, t.Dim = d, e.Shape[1]
		}
		if err == nil && (d != t.DType || e.Shape[1] != t.Dim) {
			err = fmt.Errorf("tensor %q has another type or number of values than an earlier one", e.name)
		}
		if err != nil {
			return nil, err
		}
	}
	section := func(e tensorEntry) *matrix {
		return newMatrix(io.NewSectionReader(body, e.Offsets[0], e.Offsets[1]-e.Offsets[0]), t.DType, t.Dim)
	}
	switch columns, err := perColumn(tensors, ids, onlyPooled(meta)); {
	case err != nil:
		return nil, err
	case columns:
		t.readTensors(tensors, ids, section)
		return t, nil
	}
	if err := perRecord(tensors, ids); err != nil {
		return nil, err
	}
	t.setColumns([]string{"embeddings"}, Tokens)
	t.Read = func(yield func(*Row) error) error {
		for _, e := range tensors {
			values, err := section(e).next(e.Shape[0])
			if err != nil {
				return err
			}
			if err := yield(&Row{ID: e.name, Tokens: e.Shape[0], Embeddings: [][]float32{values}}); err != nil {
				return err
			}
		}
		return nil
	}
	return t, nil
}

// tensorIDList returns the ids of the records in a safetensors file. The ids are a list in meta, which tensorIDList
// then deletes from meta, or they are the content of two tensors. If the file has neither, ids is nil. rest has the
// tensors that do not hold ids.
func tensorIDList(tensors []tensorEntry, meta map[string]string, body *io.SectionReader) (ids []string, rest []tensorEntry, err error) {
	if text, ok := meta[tensorIDs]; ok {
		delete(meta, tensorIDs)
		return ids, tensors, json.Unmarshal([]byte(text), &ids)
	}
	at := func(name, dtype string) int {
		return slices.IndexFunc(tensors, func(e tensorEntry) bool { return e.name == name && e.DType == dtype && len(e.Shape) == 1 })
	}
	text, ends := at(tensorIDs, "U8"), at(tensorIDOffsets, "I64")
	if text < 0 || ends < 0 {
		return nil, tensors, nil
	}
	bytes, err := tensors[text].content(body, 1)
	if err != nil {
		return nil, nil, err
	}
	positions, err := tensors[ends].content(body, 8)
	if err != nil {
		return nil, nil, err
	}
	all := string(bytes)
	for from := uint64(0); len(positions) >= 16; positions = positions[8:] {
		to := binary.LittleEndian.Uint64(positions[8:])
		if binary.LittleEndian.Uint64(positions) != from || to < from || to > uint64(len(all)) {
			return nil, nil, fmt.Errorf("the positions of id %d, %d to %d, are not between %d and %d", len(ids), from, to, from, len(all))
		}
		ids = append(ids, all[from:to])
		from = to
	}
	isList := func(e tensorEntry) bool { return e.name == tensorIDs || e.name == tensorIDOffsets }
	return ids, slices.DeleteFunc(tensors, isList), nil
}

// content returns the bytes of a tensor of one dimension. The argument size is the number of bytes in each value.
func (e tensorEntry) content(body *io.SectionReader, size int64) ([]byte, error) {
	from, to := e.Offsets[0], e.Offsets[1]
	if from < 0 || to < from || to > body.Size() || to-from != size*int64(e.Shape[0]) {
		return nil, fmt.Errorf("tensor %q has %d values in bytes %d to %d of %d", e.name, e.Shape[0], from, to, body.Size())
	}
	content := make([]byte, to-from)
	_, err := io.ReadFull(io.NewSectionReader(body, from, to-from), content)
	return content, noEOF(err)
}

// onlyPooled reports whether the metadata of a file names only poolings with a row per record.
func onlyPooled(meta map[string]string) bool {
	return meta["pooling"] != "" && !slices.ContainsFunc(strings.Split(meta["pooling"], ","), func(p string) bool { return !Pooling(p).PerRecord() })
}

// perColumn reports whether a safetensors file has a tensor for each column, rather than for each record. If all
// tensors have the names of records, it has one for each record, unless pooled says that the file has only poolings
// with a row per record. It returns an error if the tensor of a column has more or fewer rows than there are ids.
func perColumn(tensors []tensorEntry, ids []string, pooled bool) (bool, error) {
	if ids != nil && len(tensors) != 1 && !pooled && perRecord(tensors, ids) == nil {
		return false, nil
	}
	for _, e := range tensors {
		switch {
		case e.name != "embeddings" && !strings.HasPrefix(e.name, "embeddings_"):
			return false, nil
		case e.Shape[0] == len(ids) || ids == nil && e.Shape[0] == tensors[0].Shape[0]:
		case slices.ContainsFunc(ids, func(id string) bool { return strings.HasPrefix(e.name, id) }):
			return false, nil // the tensor belongs to a record whose id begins like the name of a column
		default:
			return false, fmt.Errorf("tensor %q has %d rows, and there are %d ids", e.name, e.Shape[0], len(ids))
		}
	}
	return true, nil
}

// perRecord returns an error unless a safetensors file without ids, or with the given ones, has one tensor for each
// record, named after its id.
func perRecord(tensors []tensorEntry, ids []string) error {
	if ids == nil {
		return nil
	}
	known := map[string]bool{}
	for _, id := range ids {
		known[id] = true
	}
	for _, e := range tensors {
		if !known[e.name] {
			return fmt.Errorf("tensor %.40q is not named after any of the %d ids: %w", e.name, len(ids), errSeveralLayers)
		}
	}
	if len(tensors) != len(ids) {
		return fmt.Errorf("%d tensors and %d ids: %w", len(tensors), len(ids), errSeveralLayers)
	}
	return nil
}

// errSeveralLayers is the cause of the error for a safetensors file whose tensors are not one for each id.
var errSeveralLayers = errors.New("safetensors files with several layers per record are not read, but parquet and h5 files are")

// readTensors sets t.Read for a safetensors file with a tensor for each column.
func (t *Table) readTensors(tensors []tensorEntry, ids []string, section func(tensorEntry) *matrix) {
	t.IDs = ids != nil
	if !t.IDs && len(tensors) > 0 {
		ids = make([]string, tensors[0].Shape[0])
	}
	var names []string
	for _, e := range tensors {
		names = append(names, e.name)
	}
	t.setColumns(names, Mean)
	t.Read = func(yield func(*Row) error) error {
		var matrices []*matrix
		for _, e := range tensors {
			matrices = append(matrices, section(e))
		}
		for _, id := range ids {
			row := &Row{ID: id, Embeddings: make([][]float32, len(matrices))}
			for i, m := range matrices {
				var err error
				if row.Embeddings[i], err = m.next(1); err != nil {
					return err
				}
			}
			if err := yield(row); err != nil {
				return err
			}
		}
		return nil
	}
}

// maxLine is the maximum number of bytes in a line of a TSV file.
const maxLine = 64 << 20

// readTSV opens a TSV file. If the file has columns for positions or letters, each line is a token or a residue, and
// consecutive lines with the same id are a record. Otherwise each line is a record.
func readTSV(f *os.File, size int64) (*Table, error) {
	if last := make([]byte, 1); size > 0 {
		if _, err := f.ReadAt(last, size-1); err != nil || last[0] != '\n' {
			return nil, errors.New("the last line has no end")
		}
	}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxLine)
	if !lines.Scan() {
		return nil, cmpError(lines.Err(), errors.New("no line with the names of the columns"))
	}
	head := strings.Split(lines.Text(), "\t")
	t := &Table{Format: TSV, DType: FP32, IDs: true}
	pooling, first := Mean, 1
	switch {
	case head[0] != tsvID:
		return nil, fmt.Errorf("the first column is %.20q, not %q", head[0], tsvID)
	case len(head) > 2 && head[1] == tsvStart && head[2] == tsvEnd:
		pooling, first = Residues, 3
	case len(head) > 1 && head[1] == tsvPosition:
		pooling, first = Tokens, 2
	}
	t.Dim = len(head) - first
	t.setColumns([]string{strings.TrimSuffix(filepath.Base(f.Name()), ".tsv")}, pooling)
	t.Read = func(yield func(*Row) error) error {
		join := joiner{yield: yield, joins: pooling != Mean}
		for n := 2; lines.Scan(); n++ {
			fields := strings.Split(lines.Text(), "\t")
			if len(fields) != len(head) {
				return fmt.Errorf("line %d has %d columns, the first %d", n, len(fields), len(head))
			}
			values, err := parseFloats(fields[first:])
			if err != nil {
				return fmt.Errorf("line %d: %w", n, err)
			}
			row := Row{ID: ofOneLine(fields[0]), Tokens: 1, Embeddings: [][]float32{values}}
			if pooling == Residues {
				l, err := residueLetters(fields[1], fields[2])
				if err != nil {
					return fmt.Errorf("line %d: %w", n, err)
				}
				row.Residues = []Letters{l}
			}
			if pooling == Tokens {
				err = join.addToken(row, fields[1])
			} else {
				err = join.add(row)
			}
			if err != nil {
				return err
			}
		}
		if err := lines.Err(); err != nil {
			return err
		}
		return join.end()
	}
	return t, nil
}

func parseFloats(fields []string) ([]float32, error) {
	values := make([]float32, len(fields))
	for i, text := range fields {
		v, err := strconv.ParseFloat(text, 32)
		if err != nil {
			return nil, err
		}
		values[i] = float32(v)
	}
	return values, nil
}

func residueLetters(first, last string) (l Letters, err error) {
	a, err := strconv.ParseInt(first, 10, 32)
	b, err2 := strconv.ParseInt(last, 10, 32)
	return Letters{int32(a), int32(b)}, errors.Join(err, err2)
}

// joiner makes one row of the consecutive rows of a table that are the residues or the tokens of one record.
type joiner struct {
	yield func(*Row) error
	joins bool // whether rows are joined; if not, every row is a record
	row   *Row // the joined row of the current record; nil before the first row
}

// add joins a row to the previous rows of the same record or window. If the row belongs to another record or window,
// add first yields the joined row.
func (j *joiner) add(r Row) error {
	switch {
	case !j.joins:
		return j.yield(&r)
	case j.row == nil:
	case j.row.ID == r.ID && j.row.Start == r.Start:
		j.row.Tokens += r.Tokens
		j.row.Residues = append(j.row.Residues, r.Residues...)
		for i, values := range r.Embeddings {
			j.row.Embeddings[i] = append(j.row.Embeddings[i], values...)
		}
		return nil
	default:
		if err := j.yield(j.row); err != nil {
			return err
		}
	}
	j.row = &r
	return nil
}

// addToken does the same as add for a row that is a token with the given position. A token at position 0 begins a
// record, even if the record before has the same id.
func (j *joiner) addToken(r Row, position string) error {
	switch {
	case position == "0":
		if err := j.end(); err != nil {
			return err
		}
		j.row = nil
	case j.row == nil || j.row.ID != r.ID || strconv.Itoa(j.row.Tokens) != position:
		return fmt.Errorf("record %.40q: position %q does not follow that of the token before", r.ID, position)
	}
	return j.add(r)
}

func (j *joiner) end() error {
	if j.row == nil {
		return nil
	}
	return j.yield(j.row)
}
