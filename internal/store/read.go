package store

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"seqembed/internal/half"
)

// Table is an output file that is open for reading. Fields of a Row that the format of the file does not store are
// zero. Only Row.Tokens may be the number of rows in Row.Embeddings instead.
type Table struct {
	Path    string
	Format  Format
	DType   DType // type of the values in the file
	Dim     int
	Names   []string // names of the columns
	Columns []Column // poolings and layers, parsed from the names of the columns (see parseColumn)
	IDs     bool     // whether the rows have ids
	Full    bool     // whether a row has all fields that Parquet stores of a record, not only the id
	Meta    map[string]string
	// Read calls yield for each record, in the order of the file. The row is valid until yield returns. Read ends with
	// the first error of yield.
	Read  func(yield func(*Row) error) error
	Close func() error
}

// ErrNoTable is wrapped by the error for a file that cannot be read as one of the package's formats.
var ErrNoTable = errors.New("cannot be read")

// readers maps the extension of a file to the function that opens it. The Table may read from f until Table.Close
// closes f.
var readers = map[string]func(f *os.File, size int64) (*Table, error){
	".parquet": readParquetTable, ".npy": readNpy, ".npz": readNpz, ".safetensors": readSafetensors, ".h5": readH5, ".tsv": readTSV, ".pt": readPt,
}

// ReadableExtensions lists the extensions of the files that OpenTable reads.
func ReadableExtensions() (list []string) {
	for ext := range readers {
		list = append(list, ext)
	}
	slices.Sort(list)
	return list
}

// OpenTable opens an output file of the format that its extension names.
func OpenTable(path string) (*Table, error) {
	open, ok := readers[filepath.Ext(path)]
	if !ok {
		return nil, fmt.Errorf("%s %w: the extension is none of %s", path, ErrNoTable, strings.Join(ReadableExtensions(), ", "))
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, ioError("read", path, err)
	}
	info, err := f.Stat()
	var t *Table
	if err == nil {
		t, err = open(f, info.Size())
	}
	if err == nil && (t.Dim < 1 || t.Dim > maxDim) {
		err = fmt.Errorf("rows of %d values", t.Dim)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s %w: %w", path, ErrNoTable, err)
	}
	t.Path = path
	read := t.Read
	t.Read = func(yield func(*Row) error) error {
		var stopped error
		err := read(func(r *Row) error { stopped = yield(r); return stopped })
		if err != nil && stopped == nil {
			err = fmt.Errorf("%s %w: %w", path, ErrNoTable, err)
		}
		return err
	}
	t.Close = f.Close
	return t, nil
}

// parseColumn returns the column that a name stands for. Underscores and dots divide the name into words, of which one
// may be a pooling and one a layer: a number, or "layer" and a number. If the argument pooling has a row per record,
// only a pooling with a row per record counts; otherwise only one with several rows counts. If no pooling counts, the
// column has the argument pooling; if no word is a layer, it has layer 0.
func parseColumn(name string, pooling Pooling) Column {
	c := Column{Pooling: pooling}
	for part := range strings.FieldsFuncSeq(name, func(r rune) bool { return r == '_' || r == '.' }) {
		if p := Pooling(part); slices.Contains(Poolings(), p) && p.PerRecord() == pooling.PerRecord() {
			c.Pooling = p
		} else if n, err := strconv.Atoi(strings.TrimPrefix(part, "layer")); err == nil && n >= 0 {
			c.Layer = n
		}
	}
	return c
}

// setColumns sets t.Names and t.Columns from the names of the columns. A column whose name tells no pooling (see
// parseColumn) gets the argument pooling.
func (t *Table) setColumns(names []string, pooling Pooling) {
	t.Names = names
	for _, name := range names {
		t.Columns = append(t.Columns, parseColumn(name, pooling))
	}
}

// appendValues decodes the little-endian values in b and appends them to dst.
func appendValues(dst []float32, dtype DType, b []byte) []float32 {
	if dtype == FP16 {
		for ; len(b) >= 2; b = b[2:] {
			dst = append(dst, half.FromFP16(binary.LittleEndian.Uint16(b)))
		}
		return dst
	}
	for ; len(b) >= 4; b = b[4:] {
		dst = append(dst, math.Float32frombits(binary.LittleEndian.Uint32(b)))
	}
	return dst
}

// matrix reads the rows of an array one after the other.
type matrix struct {
	from   *bufio.Reader
	dtype  DType
	bytes  []byte
	values []float32
}

func newMatrix(r io.Reader, dtype DType, dim int) *matrix {
	return &matrix{from: bufio.NewReaderSize(r, bufferSize), dtype: dtype, bytes: make([]byte, dtype.size()*dim)}
}

// next returns the values of the next n rows, which are valid until the next call.
func (m *matrix) next(n int) ([]float32, error) {
	m.values = m.values[:0]
	for range n {
		if _, err := io.ReadFull(m.from, m.bytes); err != nil {
			return nil, noEOF(err)
		}
		m.values = appendValues(m.values, m.dtype, m.bytes)
	}
	return m.values, nil
}

// noEOF replaces io.EOF, for a file that ends too early, by io.ErrUnexpectedEOF. It returns any other error as it is.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// parseNpyHeader reads the header of a NumPy array with two dimensions in C order, as this package writes it. dtype is
// NumPy's name of the type.
func parseNpyHeader(r io.Reader) (dtype string, rows, dim int, err error) {
	prefix := make([]byte, 10)
	if _, err := io.ReadFull(r, prefix); err != nil {
		return "", 0, 0, noEOF(err)
	}
	if string(prefix[:6]) != "\x93NUMPY" || prefix[6] != 1 {
		return "", 0, 0, errors.New("not an array of NumPy, version 1")
	}
	text := make([]byte, binary.LittleEndian.Uint16(prefix[8:]))
	if _, err := io.ReadFull(r, text); err != nil {
		return "", 0, 0, noEOF(err)
	}
	if _, err := fmt.Sscanf(string(bytes.TrimSpace(text)), "{'descr': '%3s', 'fortran_order': False, 'shape': (%d, %d), }", &dtype, &rows, &dim); err != nil ||
		rows < 0 || dim < 0 {
		return "", 0, 0, fmt.Errorf("an array that is not a matrix in C order: %s", bytes.TrimSpace(text))
	}
	return dtype, rows, dim, nil
}

// npyDType returns the DType that has the given name in NumPy, such as <f4.
func npyDType(name string) (DType, error) {
	for _, d := range DTypes() {
		if d.npy() == name {
			return d, nil
		}
	}
	return "", fmt.Errorf("values of type %s", name)
}

// idFile is the text file with the ids of the records in a NumPy file, one per line.
type idFile struct {
	lines *bufio.Scanner // nil if there is no such file
	file  *os.File
}

// openIDs opens the list of ids that belongs to the NumPy file at path.
func openIDs(path string) (ids idFile) {
	listOf(path, func(list string) bool {
		f, err := os.Open(list)
		if err != nil {
			return false
		}
		ids = idFile{bufio.NewScanner(f), f}
		ids.lines.Buffer(nil, maxText)
		return true
	})
	return ids
}

// listOf returns the path of the list of ids of the NumPy file at path: the first possible one for which the function
// exists returns true, or "". The name of an array may have a pooling and a layer that the name of the list does not
// have: the list of x.mean.layer5.npy is x.ids.txt. A file with another extension than that of NumPy has no list.
func listOf(path string, exists func(list string) bool) string {
	ext := filepath.Ext(path)
	if ext != ".npy" && ext != ".npz" {
		return ""
	}
	stem := strings.TrimSuffix(path, ext)
	for {
		if exists(stem + idsSuffix) {
			return stem + idsSuffix
		}
		ext := filepath.Ext(stem)
		if !isColumn(strings.TrimPrefix(ext, ".")) {
			return ""
		}
		stem = strings.TrimSuffix(stem, ext)
	}
}

// isColumn reports whether a part of a file name, between two dots, is a pooling or a layer.
func isColumn(part string) bool {
	_, err := strconv.ParseUint(strings.TrimPrefix(part, "layer"), 10, 31)
	return slices.Contains(Poolings(), Pooling(part)) || strings.HasPrefix(part, "layer") && err == nil
}

// next returns the next id of the list, or an error if there is none. Without a list it returns "".
func (l idFile) next() (string, error) {
	switch {
	case l.lines == nil:
		return "", nil
	case l.lines.Scan():
		return ofOneLine(l.lines.Text()), nil
	}
	return "", cmpError(l.lines.Err(), errors.New("the list of ids is shorter than the array"))
}

// end returns an error if the list has ids that were not read.
func (l idFile) end() error {
	if l.lines != nil && l.lines.Scan() {
		return errors.New("the list of ids is longer than the array")
	}
	return nil
}

func (l idFile) close() {
	if l.file != nil {
		l.file.Close()
	}
}

func cmpError(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

func readNpy(f *os.File, size int64) (*Table, error) {
	dtype, rows, dim, err := parseNpyHeader(f)
	if err != nil {
		return nil, err
	}
	d, err := npyDType(dtype)
	if err != nil {
		return nil, err
	}
	header, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, err
	}
	if row := int64(dim) * int64(d.size()); row > 0 && ((size-header)%row != 0 || (size-header)/row != int64(rows)) {
		return nil, fmt.Errorf("%d bytes for an array of %d by %d values of %d bytes", size-header, rows, dim, d.size())
	}
	t := &Table{Format: Npy, DType: d, Dim: dim}
	t.setColumns([]string{strings.TrimSuffix(filepath.Base(f.Name()), ".npy")}, Mean)
	ids := openIDs(f.Name())
	t.IDs = ids.lines != nil
	t.Read = func(yield func(*Row) error) error {
		defer ids.close()
		m := newMatrix(f, d, dim)
		for range rows {
			values, err := m.next(1)
			if err != nil {
				return err
			}
			id, err := ids.next()
			if err != nil {
				return err
			}
			if err := yield(&Row{ID: id, Embeddings: [][]float32{values}}); err != nil {
				return err
			}
		}
		return ids.end()
	}
	return t, nil
}
