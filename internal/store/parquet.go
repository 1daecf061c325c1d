package store

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/parquet-go/parquet-go"
)

// Parquet is a table with one row per record, residue or token.
const Parquet Format = "parquet"

const (
	// rowGroupBytes is the approximate size in bytes of a row group, which parquet-go keeps in memory until it is
	// complete.
	rowGroupBytes = 64 << 20
	// pageBytes is the size in bytes of a page in a row group.
	pageBytes = 1 << 20
)

// parquetRow has a field for every column that a Parquet output can have. columnTags makes the struct tags of each
// output, which select and name its columns. parquet-go writes rows of a struct type ten times as fast as rows of its
// generic values.
type parquetRow struct {
	ID          string
	Description string
	Length      int64
	Tokens      int64
	Truncated   bool
	Record      int64 // number of letters of the record
	WindowStart int64 // first letter, in the record, of the window of a residue
	WindowEnd   int64 // last letter, in the record, of the window of a residue
	Start, End  int64 // first and last letter, in the record, of a window or residue
	Position    int64 // index of the token in its record, from 0, counting special tokens
	// The fields E00 to E63 hold the embeddings of up to 64 columns in float32, and H00 to H63 those in float16.
	E00, E01, E02, E03, E04, E05, E06, E07, E08, E09, E10, E11, E12, E13, E14, E15 []float32
	E16, E17, E18, E19, E20, E21, E22, E23, E24, E25, E26, E27, E28, E29, E30, E31 []float32
	E32, E33, E34, E35, E36, E37, E38, E39, E40, E41, E42, E43, E44, E45, E46, E47 []float32
	E48, E49, E50, E51, E52, E53, E54, E55, E56, E57, E58, E59, E60, E61, E62, E63 []float32
	H00, H01, H02, H03, H04, H05, H06, H07, H08, H09, H10, H11, H12, H13, H14, H15 [][2]byte
	H16, H17, H18, H19, H20, H21, H22, H23, H24, H25, H26, H27, H28, H29, H30, H31 [][2]byte
	H32, H33, H34, H35, H36, H37, H38, H39, H40, H41, H42, H43, H44, H45, H46, H47 [][2]byte
	H48, H49, H50, H51, H52, H53, H54, H55, H56, H57, H58, H59, H60, H61, H62, H63 [][2]byte
}

// maxParquetColumns is the number of fields for embeddings in parquetRow.
const maxParquetColumns = 64

func checkParquet(s *Spec) error {
	merged := *s
	merged.Shard = "" // the limit holds for the tables of the output, not for a shard, which has all columns
	for _, t := range merged.tables() {
		if n := len(t.columns); n > maxParquetColumns {
			return fmt.Errorf("format parquet supports at most %d layers and poolings in a file, not %d", maxParquetColumns, n)
		}
	}
	return nil
}

// embeddingField returns the name of the field of parquetRow that holds the embeddings of column i.
func (s *Spec) embeddingField(i int) string {
	if s.DType == FP16 {
		return fmt.Sprintf("H%02d", i)
	}
	return fmt.Sprintf("E%02d", i)
}

// columnTags returns the struct tag of every field of parquetRow, by the name of the field. Texts, integers and
// booleans are compressed with snappy, which every reader supports. Floats have neither compression nor a dictionary,
// because these take time and save almost nothing. With Spec.Compress everything is compressed with Zstandard, and the
// bytes of float32 values are first sorted by their significance (a byte-stream split).
func columnTags(s *Spec) map[string]string {
	tags := map[string]string{
		"ID":          "id,plain,snappy",
		"Description": "description,plain,snappy",
		"Length":      "length,plain,snappy",
		"Tokens":      "tokens,plain,snappy",
		"Truncated":   "truncated,plain,snappy",
		"Record":      "record_length,plain,snappy",
	}
	switch {
	case !s.perRecord():
		tags = map[string]string{"ID": "id,dict,snappy"} // a dictionary, because all rows of a record have the same id
	case s.IDsOnly:
		tags = map[string]string{"ID": "id,plain,snappy"}
	}
	switch window := s.Windows; {
	case s.pooling() == Residues && window:
		tags["WindowStart"], tags["WindowEnd"] = "window_start,plain,snappy", "window_end,plain,snappy"
		fallthrough
	case s.pooling() == Residues || window:
		tags["Start"], tags["End"] = "start,plain,snappy", "end,plain,snappy"
	}
	if s.pooling() == Tokens {
		tags["Position"] = "position,plain,snappy"
	}
	for _, field := range reflect.VisibleFields(reflect.TypeFor[parquetRow]()) {
		if _, ok := tags[field.Name]; !ok {
			tags[field.Name] = "-"
		}
	}
	for field, tag := range tags {
		if s.Compress {
			tag = strings.ReplaceAll(tag, "snappy", "zstd")
		}
		tags[field] = `parquet:"` + tag + `"`
	}
	for i, name := range s.columnNames("embedding") {
		tag := `parquet:"` + name + `,plain,list"`
		switch {
		case s.Compress && s.DType == FP16: // DuckDB does not read float16 after a byte-stream split
			tag = `parquet:"` + name + `,zstd,list"`
		case s.Compress:
			tag = `parquet:"` + name + `,zstd,list" parquet-element:",zstd,split"`
		}
		tags[s.embeddingField(i)] = tag
	}
	return tags
}

// arrowColumns returns the columns of a table in the types of Arrow. The lists of a table have dim elements each.
func arrowColumns(schema *parquet.Schema, dim int) (columns []arrowField) {
	for _, field := range schema.Fields() {
		if !field.Leaf() {
			element := field.Fields()[0].Fields()[0]
			columns = append(columns, arrowList(field.Name(), arrowType(element.Type()), dim))
			continue
		}
		columns = append(columns, arrowField{name: field.Name(), kind: arrowType(field.Type())})
	}
	return columns
}

func arrowType(t parquet.Type) flatTable {
	switch t.Kind() {
	case parquet.Boolean:
		return arrowBool
	case parquet.Int64:
		return arrowInt64
	case parquet.Float:
		return arrowFloat
	case parquet.FixedLenByteArray: // the logical type FLOAT16
		return arrowHalf
	}
	return arrowText
}

// parquetEncoder writes one row per record, residue or token.
type parquetEncoder struct {
	spec   *Spec
	file   *atomicFile
	writer *parquet.GenericWriter[parquetRow]
	row    []parquetRow // the row to write, always of length 1
	values []*[]float32 // the fields for embeddings in row, one per column; nil for FP16
	halves []*[][2]byte // the fields for embeddings in row, one per column; nil for FP32
	bytes  int          // approximate size in bytes of the current row group
}

func newParquetEncoder(s *Spec, files *fileSet) (encoder, error) {
	f, err := files.create(s.Paths()[0], s.DType == FP16)
	if err != nil {
		return nil, err
	}
	options := []parquet.WriterOption{
		// Every reader supports version 1 of data pages.
		parquet.DataPageVersion(1),
		// The column index, which is also in the file, contains the same statistics.
		parquet.DataPageStatistics(false),
		parquet.PageBufferSize(pageBytes),
		parquet.WriteBufferSize(0),
		// The Bloom filter tells a reader which row groups do not have a given id. It takes 10 bits a row.
		parquet.BloomFilters(parquet.SplitBlockFilter(10, "id")),
	}
	for field, tag := range columnTags(s) {
		options = append(options, parquet.StructTag(reflect.StructTag(tag), field))
	}
	for _, name := range s.columnNames("embedding") {
		if s.DType == FP16 { // parquet-go would find the bounds by comparing bytes, not values
			options = append(options, parquet.SkipPageBounds(name, "list", "element"))
		}
	}
	for key, value := range s.Meta {
		options = append(options, parquet.KeyValueMetadata(ValidText(key), ValidText(value)))
	}
	e := &parquetEncoder{
		spec:   s,
		file:   f,
		writer: parquet.NewGenericWriter[parquetRow](f, options...),
		row:    make([]parquetRow, 1),
	}
	e.writer.SetKeyValueMetadata(arrowSchemaKey, arrowSchema(arrowColumns(e.writer.Schema(), s.Dim)))
	fields := reflect.ValueOf(&e.row[0]).Elem()
	for i := range s.Columns {
		switch field := fields.FieldByName(s.embeddingField(i)).Addr().Interface().(type) {
		case *[]float32:
			e.values = append(e.values, field)
		case *[][2]byte:
			e.halves = append(e.halves, field)
		}
	}
	return e, nil
}

func (e *parquetEncoder) add(r *Row) error {
	row := &e.row[0]
	row.ID, row.Description, row.Truncated = r.ID, r.Description, r.Truncated
	row.Length, row.Tokens, row.Record = int64(r.Length), int64(r.Tokens), int64(r.RecordLength)
	row.Start, row.End = int64(r.Start), int64(r.End)
	row.WindowStart, row.WindowEnd = row.Start, row.End
	for i := range e.spec.rows(r) {
		row.Position = int64(i)
		if e.spec.pooling() == Residues {
			row.Start, row.End = int64(r.Residues[i].First), int64(r.Residues[i].Last)
		}
		for c, values := range r.Embeddings {
			values = values[i*e.spec.Dim : (i+1)*e.spec.Dim]
			if e.spec.DType == FP16 {
				*e.halves[c] = appendHalves((*e.halves[c])[:0], values)
			} else {
				*e.values[c] = values
			}
		}
		if err := e.write(); err != nil {
			return err
		}
	}
	return nil
}

func (e *parquetEncoder) write() error {
	if _, err := e.writer.Write(e.row); err != nil {
		return err
	}
	const fixedColumns = 32 // approximate size in bytes of a row without texts and embeddings
	e.bytes += len(e.row[0].ID) + len(e.row[0].Description) + fixedColumns + e.spec.DType.size()*e.spec.Dim*len(e.spec.Columns)
	if e.bytes < rowGroupBytes {
		return nil
	}
	e.bytes = 0
	return e.writer.Flush()
}

func (e *parquetEncoder) finish() error {
	if err := e.writer.Close(); err != nil || e.spec.DType != FP16 {
		return err
	}
	return annotateFloat16(e.file)
}
