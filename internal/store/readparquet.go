package store

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

// readParquetTable opens a Parquet file that has columns with lists of floats and usually a column of ids. The file may
// have been written by another program.
func readParquetTable(f *os.File, size int64) (t *Table, err error) {
	defer recoverDamage(&err, new(bool))
	p, err := openParquet(f, size)
	if err != nil {
		return nil, err
	}
	t = &Table{Format: Parquet, Dim: 1, Meta: map[string]string{}}
	for _, kv := range p.Metadata().KeyValueMetadata {
		if kv.Key != arrowSchemaKey {
			t.Meta[kv.Key] = kv.Value
		}
	}
	r := parquetReader{file: p, content: io.NewSectionReader(f, 0, size), place: map[string]int{}}
	var names []string
	if names, t.DType, err = r.findColumns(); err != nil {
		return nil, err
	}
	has := func(columns ...string) bool {
		return !slices.ContainsFunc(columns, func(c string) bool { _, ok := r.place[c]; return !ok })
	}
	t.IDs, t.Full = has("id"), has("id", "description", "length", "tokens", "truncated", "record_length")
	pooling := Mean
	switch {
	case has("position") && !t.Full:
		pooling = Tokens
	case has("start", "end") && !t.Full:
		pooling = Residues
	}
	t.setColumns(names, pooling)
	r.residues = pooling == Residues
	switch {
	case r.residues && has("window_start", "window_end"):
		r.window = [2]string{"window_start", "window_end"}
	case !r.residues && has("start", "end"):
		r.window = [2]string{"start", "end"}
	}
	first := errors.New("first")
	err = r.read(func(row *Row) error { t.Dim = len(row.Embeddings[0]); return first })
	if err != nil && !errors.Is(err, first) {
		return nil, err
	}
	t.Read = func(yield func(*Row) error) error {
		join := joiner{yield: yield, joins: pooling != Mean}
		err := r.read(func(row *Row) error {
			for i, e := range row.Embeddings {
				if len(e) != t.Dim {
					return fmt.Errorf("record %.40q has a list of %d values in column %s, an earlier one %d", row.ID, len(e), names[i], t.Dim)
				}
			}
			return join.add(*row)
		})
		if err != nil {
			return err
		}
		return join.end()
	}
	return t, nil
}

// openParquet opens a Parquet file without its indices, which are not used. It checks the length of the footer first,
// because parquet-go allocates memory of that length.
func openParquet(f *os.File, size int64) (*parquet.File, error) {
	var end [8]byte // length of the footer, and the letters PAR1
	if size < int64(len(end)) {
		return nil, io.ErrUnexpectedEOF
	}
	if _, err := f.ReadAt(end[:], size-int64(len(end))); err != nil {
		return nil, noEOF(err)
	}
	if n := int64(binary.LittleEndian.Uint32(end[:])); n > size-int64(len(end)) {
		return nil, fmt.Errorf("a footer of %d bytes in a file of %d", n, size)
	}
	return parquet.OpenFile(f, size, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
}

// recoverDamage, in a defer statement, replaces a panic of parquet-go, which a damaged file can cause, by an error. A
// panic while *yielding is true goes on, because it is not one of parquet-go.
func recoverDamage(err *error, yielding *bool) {
	if *yielding {
		return
	}
	if cause := recover(); cause != nil {
		*err = fmt.Errorf("the file is damaged: %v", cause)
	}
}

// parquetReader reads rows with the generic values of parquet-go.
type parquetReader struct {
	file     *parquet.File
	content  *io.SectionReader // all bytes of the file
	place    map[string]int    // indices of the columns of single values, by name
	lists    []int             // indices of the columns of embeddings
	window   [2]string         // names of the columns that tell which letters of the record a row covers; "" if none
	residues bool              // whether a row is a residue, with its first and last letter
}

// findColumns finds the columns of the file by their names and types. It returns the names of the columns with lists of
// floats. dtype is FP32 if any of these columns has float32 values, and FP16 if all have float16 values. It is an error
// if there are no such columns, or if the column of ids is not one of texts.
func (p *parquetReader) findColumns() (names []string, dtype DType, err error) {
	for i, path := range p.file.Schema().Columns() {
		leaf, _ := p.file.Schema().Lookup(path...)
		switch kind := leaf.Node.Type().Kind(); {
		case len(path) == 1 && path[0] == "id" && kind != parquet.ByteArray:
			return nil, "", fmt.Errorf("ids of type %s: only text is read", kind)
		case len(path) == 1:
			p.place[path[0]] = i
		case len(path) == 3 && kind == parquet.Float:
			p.lists, names, dtype = append(p.lists, i), append(names, path[0]), FP32
		case len(path) == 3 && kind == parquet.FixedLenByteArray && leaf.Node.Type().Length() == 2:
			p.lists, names, dtype = append(p.lists, i), append(names, path[0]), cmp.Or(dtype, FP16)
		}
	}
	if len(names) == 0 {
		return nil, "", errors.New("no column with lists of float32 or float16")
	}
	return names, dtype, nil
}

// checkDictionaries compares the checksums of the pages with the dictionaries of columns, such as the ids of residues.
// parquet-go writes these checksums, and compares only those of other pages.
func (p *parquetReader) checkDictionaries() error {
	for _, group := range p.file.Metadata().RowGroups {
		for _, column := range group.Columns {
			at := column.MetaData.DictionaryPageOffset
			if at <= 0 || at >= p.content.Size() {
				continue
			}
			page, header := bufio.NewReader(io.NewSectionReader(p.content, at, p.content.Size()-at)), format.PageHeader{}
			if err := thrift.NewDecoder(new(thrift.CompactProtocol).NewReader(page)).Decode(&header); err != nil {
				return fmt.Errorf("the file is damaged: a dictionary at byte %d: %w", at, err)
			}
			sum := crc32.NewIEEE()
			_, err := io.CopyN(sum, page, int64(header.CompressedPageSize))
			if err != nil || header.CRC != 0 && sum.Sum32() != uint32(header.CRC) {
				return errors.Join(err, fmt.Errorf("the file is damaged: the checksum of the dictionary at byte %d is wrong", at))
			}
		}
	}
	return nil
}

// read calls yield for each row of the file. A panic of yield passes on; see recoverDamage for the others.
func (p *parquetReader) read(yield func(*Row) error) (err error) {
	yielding := false
	defer recoverDamage(&err, &yielding)
	if err := p.checkDictionaries(); err != nil {
		return err
	}
	buffer, left := make([]parquet.Row, 64), p.file.NumRows()
	for _, group := range p.file.RowGroups() {
		rows := group.Rows()
		for {
			n, err := rows.ReadRows(buffer)
			left -= int64(n)
			for _, row := range buffer[:n] {
				r, err := p.row(row)
				if err != nil {
					rows.Close()
					return err
				}
				yielding = true
				yielded := yield(r)
				yielding = false
				if yielded != nil {
					rows.Close()
					return yielded
				}
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				rows.Close()
				return err
			}
		}
		if err := rows.Close(); err != nil {
			return err
		}
	}
	if left != 0 {
		return fmt.Errorf("the file is damaged: %d of %d rows can be read", p.file.NumRows()-left, p.file.NumRows())
	}
	return nil
}

// errNull is the error for a null in place of an id or a value, of which Row has none.
var errNull = errors.New("a row has a null in place of its id, or in an embedding")

// row converts a row of parquet-go to a Row.
func (p *parquetReader) row(values parquet.Row) (*Row, error) {
	leaves := make([][]parquet.Value, len(p.file.Schema().Columns()))
	for column, v := range values.Range {
		leaves[column] = v
	}
	first := func(name string) parquet.Value {
		if i, ok := p.place[name]; ok && len(leaves[i]) > 0 {
			return leaves[i][0]
		}
		return parquet.Value{}
	}
	text := func(name string) string {
		if v := first(name); v.Kind() == parquet.ByteArray {
			return string(v.ByteArray())
		}
		return ""
	}
	number := func(name string) int {
		if v := first(name); v.Kind() == parquet.Int64 {
			return int(v.Int64())
		}
		return 0
	}
	row := &Row{ID: text("id"), Description: text("description"), Length: number("length"), Tokens: max(1, number("tokens")),
		RecordLength: number("record_length")}
	if v := first("truncated"); v.Kind() == parquet.Boolean {
		row.Truncated = v.Boolean()
	}
	if p.window[0] != "" {
		row.Start, row.End = number(p.window[0]), number(p.window[1])
	}
	if p.residues {
		row.Residues = []Letters{{int32(number("start")), int32(number("end"))}}
	}
	if _, ok := p.place["id"]; ok && first("id").IsNull() {
		return nil, errNull
	}
	for _, i := range p.lists {
		e := make([]float32, 0, len(leaves[i]))
		for _, v := range leaves[i] {
			switch {
			case v.IsNull():
				return nil, errNull
			case v.Kind() == parquet.Float:
				e = append(e, v.Float())
			default:
				e = appendValues(e, FP16, v.ByteArray())
			}
		}
		row.Embeddings = append(row.Embeddings, e)
	}
	return row, nil
}
