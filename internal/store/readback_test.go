package store

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"seqembed/internal/readback"
)

// bitsOf returns the ids and the values of rows in the form in which the scripts of these tests print them: a line for
// each row of a table, with the bits of the values.
func bitsOf(s Spec, rows []Row) (lines []string) {
	for _, r := range rows {
		for i := range s.rows(&r) {
			line := fmt.Sprintf("%q", r.ID)
			for _, e := range r.Embeddings {
				line += "\t" + hex.EncodeToString(appendFloats(nil, e[i*s.Dim:(i+1)*s.Dim]))
			}
			lines = append(lines, line)
		}
	}
	return lines
}

// plainRows returns rows whose ids every language prints alike.
func plainRows(s Spec, count int) []Row {
	rows := makeRows(s, count)
	for i := range rows {
		rows[i].ID = fmt.Sprintf("sp|P%05d|é", i)
	}
	return rows
}

// checkLines compares the output of a script with the rows.
func checkLines(t *testing.T, out string, s Spec, rows []Row) {
	t.Helper()
	got, want := strings.Split(strings.TrimSuffix(out, "\n"), "\n"), bitsOf(s, rows)
	if len(got) != len(want) {
		t.Fatalf("%d rows, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("row %d is\n%s, want\n%s", i, got[i], want[i])
		}
	}
}

// parquetSpecs returns the layouts of Parquet that other software reads back.
func parquetSpecs(t *testing.T) []Spec {
	perToken := spec(t, Parquet)
	perToken.Columns = columnsOf([]int{3, 33}, Tokens)
	layers := spec(t, Parquet, 0, 33)
	layers.Compress = true
	return []Spec{spec(t, Parquet, 33), layers, perToken}
}

func TestDuckDBReadsParquet(t *testing.T) {
	for _, s := range parquetSpecs(t) {
		rows := plainRows(s, 300)
		out := readback.Node(t, []string{"@duckdb/node-api"}, `
import { DuckDBInstance } from '@duckdb/node-api';
const [path, ...columns] = process.argv.slice(2);
const c = await (await DuckDBInstance.create(':memory:')).connect();
const r = await c.runAndReadAll("SELECT * FROM '" + path + "'");
for (const row of r.getRowObjects())
  console.log(['"' + row.id + '"', ...columns.map(c => Buffer.from(Float32Array.from(row[c].items).buffer).toString('hex'))].join('\t'));
const one = await c.runAndReadAll("SELECT bloom_filter_excludes FROM parquet_bloom_probe('" + path + "', 'id', 'absent')");
if (one.getRows().length == 0 || one.getRows().some(r => !r[0])) throw new Error('the filter does not exclude an id: ' + one.getRows());
const stats = await c.runAndReadAll("SELECT stats_min_value, stats_max_value FROM parquet_metadata('" + path + "') WHERE path_in_schema = 'id'");
if (stats.getRows()[0][1] != 'sp|P00299|é') throw new Error('statistics of id: ' + stats.getRows());
`, append([]string{writeAll(t, s, rows)[0].Path}, s.columnNames("embedding")...)...)
		checkLines(t, out, s, rows)
	}
}

func TestHyparquetReadsParquet(t *testing.T) {
	for _, s := range parquetSpecs(t) {
		rows := plainRows(s, 300)
		out := readback.Node(t, []string{"hyparquet", "hyparquet-compressors"}, `
import { asyncBufferFromFile, parquetReadObjects } from 'hyparquet';
import { compressors } from 'hyparquet-compressors';
const [path, ...columns] = process.argv.slice(2);
for (const row of await parquetReadObjects({ file: await asyncBufferFromFile(path), compressors }))
  console.log(['"' + row.id + '"', ...columns.map(c => Buffer.from(Float32Array.from(row[c]).buffer).toString('hex'))].join('\t'));
`, append([]string{writeAll(t, s, rows)[0].Path}, s.columnNames("embedding")...)...)
		checkLines(t, out, s, rows)
	}
}

// TestArrowSeesFixedSizeLists reads files with the Rust implementation of Arrow.
func TestArrowSeesFixedSizeLists(t *testing.T) {
	for _, s := range parquetSpecs(t) {
		rows := plainRows(s, 300)
		out := readback.Node(t, []string{"parquet-wasm", "apache-arrow"}, `
import { readFileSync } from 'fs';
import { tableFromIPC } from 'apache-arrow';
import { createRequire } from 'module';
const { readParquet } = createRequire(import.meta.url)('parquet-wasm');
const [path, ...columns] = process.argv.slice(2);
const table = tableFromIPC(readParquet(readFileSync(path)).intoIPCStream());
for (const c of columns) {
  const type = String(table.schema.fields.find(f => f.name == c).type);
  if (type != 'FixedSizeList[24]<Float32>') throw new Error(c + ' is ' + type);
}
for (const row of table)
  console.log(['"' + row.id + '"', ...columns.map(c => Buffer.from(Float32Array.from(row[c].toArray()).buffer).toString('hex'))].join('\t'));
`, append([]string{writeAll(t, s, rows)[0].Path}, s.columnNames("embedding")...)...)
		checkLines(t, out, s, rows)
	}
}
