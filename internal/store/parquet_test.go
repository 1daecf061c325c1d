package store

import (
	"io"
	"os"
	"reflect"
	"testing"

	"github.com/parquet-go/parquet-go"
)

// parquetTable is the content of a Parquet file: the values of every top-level column, in file order.
type parquetTable struct {
	columns   []string
	values    map[string][][]parquet.Value
	metadata  map[string]string
	rowGroups []int64 // size in bytes of each row group
}

// readParquet reads a file with the generic values of parquet-go, which the encoder does not use.
func readParquet(t *testing.T, path string) parquetTable {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	p, err := parquet.OpenFile(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	table := parquetTable{values: make(map[string][][]parquet.Value), metadata: make(map[string]string)}
	for _, field := range p.Schema().Fields() {
		table.columns = append(table.columns, field.Name())
	}
	for _, kv := range p.Metadata().KeyValueMetadata {
		table.metadata[kv.Key] = kv.Value
	}
	leaves := p.Schema().Columns()
	for i, group := range p.RowGroups() {
		table.rowGroups = append(table.rowGroups, p.Metadata().RowGroups[i].TotalByteSize)
		rows := group.Rows()
		buffer := make([]parquet.Row, 16)
		for {
			n, err := rows.ReadRows(buffer)
			for _, row := range buffer[:n] {
				for column, values := range row.Range {
					copied := make([]parquet.Value, len(values))
					for j, v := range values {
						copied[j] = v.Clone()
					}
					name := leaves[column][0]
					table.values[name] = append(table.values[name], copied)
				}
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		rows.Close()
	}
	return table
}

func (p parquetTable) floats(column string, row int) []float32 {
	var values []float32
	for _, v := range p.values[column][row] {
		values = append(values, v.Float())
	}
	return values
}

func TestParquetHoldsOneRowPerRecord(t *testing.T) {
	for _, layers := range [][]int{{33}, {0, 7, 33}, makeLayers(maxParquetColumns)} {
		s := spec(t, Parquet, layers...)
		rows := makeRows(s, 40)
		table := readParquet(t, writeAll(t, s, rows)[0].Path)

		want := []string{"id", "description", "length", "tokens", "truncated", "record_length"}
		embeddings := s.columnNames("embedding")
		if want = append(want, embeddings...); !reflect.DeepEqual(table.columns, want) {
			t.Fatalf("columns %q, want %q", table.columns, want)
		}
		if len(layers) == 3 && embeddings[2] != "embedding_33" {
			t.Errorf("the column of layer 33 is called %q", embeddings[2])
		}
		delete(table.metadata, arrowSchemaKey)
		if !reflect.DeepEqual(table.metadata, s.Meta) {
			t.Errorf("metadata %q, want %q", table.metadata, s.Meta)
		}
		if n := len(table.values["id"]); n != len(rows) {
			t.Fatalf("%d rows, want %d", n, len(rows))
		}
		for i, r := range rows {
			cell := func(column string) parquet.Value { return table.values[column][i][0] }
			if cell("id").String() != r.ID || cell("description").String() != r.Description {
				t.Errorf("row %d is %q, %q", i, cell("id"), cell("description"))
			}
			if cell("length").Int64() != int64(r.Length) || cell("tokens").Int64() != int64(r.Tokens) || cell("truncated").Boolean() != r.Truncated ||
				cell("record_length").Int64() != int64(r.RecordLength) {
				t.Errorf("row %d: length %v, tokens %v, truncated %v", i, cell("length"), cell("tokens"), cell("truncated"))
			}
			for l, column := range embeddings {
				if got := table.floats(column, i); !sameBits(got, r.Embeddings[l]) {
					t.Fatalf("row %d, %s: %v, want %v", i, column, got, r.Embeddings[l])
				}
			}
		}
	}
}

func TestParquetHoldsOneRowPerToken(t *testing.T) {
	for _, layers := range [][]int{{33}, {0, 33}} {
		s := spec(t, Parquet)
		s.Columns = columnsOf(layers, Tokens)
		rows := makeRows(s, 40)
		table := readParquet(t, writeAll(t, s, rows)[0].Path)
		embeddings := s.columnNames("embedding")
		if want := append([]string{"id", "position"}, embeddings...); !reflect.DeepEqual(table.columns, want) {
			t.Fatalf("columns %q, want %q", table.columns, want)
		}
		at := 0
		for _, r := range rows {
			for token := range r.Tokens {
				if id, position := table.values["id"][at][0], table.values["position"][at][0]; id.String() != r.ID || position.Int64() != int64(token) {
					t.Errorf("row %d is token %v of %q, want %d of %q", at, position, id, token, r.ID)
				}
				for l, column := range embeddings {
					if got := table.floats(column, at); !sameBits(got, r.Embeddings[l][token*s.Dim:(token+1)*s.Dim]) {
						t.Fatalf("row %d, %s: %v", at, column, got)
					}
				}
				at++
			}
		}
		if n := len(table.values["id"]); n != at {
			t.Errorf("%d rows, want %d", n, at)
		}
	}
}

// TestParquetSchema checks that embeddings have the standard three-level LIST type, which other readers convert to a
// list of float32.
func TestParquetSchema(t *testing.T) {
	s := spec(t, Parquet, 33)
	path := writeAll(t, s, nil)[0].Path
	content := readFile(t, path)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := parquet.OpenFile(f, int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	const want = `message parquetRow {
	required binary id (STRING);
	required binary description (STRING);
	required int64 length (INT(64,true));
	required int64 tokens (INT(64,true));
	required boolean truncated;
	required int64 record_length (INT(64,true));
	required group embedding (LIST) {
		repeated group list {
			required float element;
		}
	}
}`
	if got := p.Schema().String(); got != want {
		t.Errorf("schema\n%s\nwant\n%s", got, want)
	}
	if p.NumRows() != 0 {
		t.Errorf("%d rows in an output without records", p.NumRows())
	}
}

// TestParquetRowGroupsAreBounded checks that the row groups of a Parquet file are at most an eighth larger than
// rowGroupBytes. The writer keeps a row group in memory, so the bound limits the memory of a long run.
func TestParquetRowGroupsAreBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine, and slow under the race detector")
	}
	s := spec(t, Parquet, 33)
	s.Dim = 1 << 16
	row := Row{ID: "x", Embeddings: [][]float32{make([]float32, s.Dim)}}
	row.Embeddings[0][0] = 1
	w, err := Create(s)
	if err != nil {
		t.Fatal(err)
	}
	for range rowGroupBytes/(4*s.Dim) + 30 {
		if err := w.Write(row); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(s.Paths()[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	p, err := parquet.OpenFile(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	groups := p.Metadata().RowGroups
	if len(groups) != 2 {
		t.Errorf("%d row groups, want 2", len(groups))
	}
	for _, g := range groups {
		if g.TotalByteSize > rowGroupBytes+rowGroupBytes/8 {
			t.Errorf("a row group of %d bytes, the bound is %d", g.TotalByteSize, rowGroupBytes)
		}
	}
}
