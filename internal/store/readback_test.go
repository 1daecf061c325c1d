package store

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"

	"seqembed/internal/half"
	"seqembed/internal/readback"
)

// bitsOf returns the lines that a script in another language must print when it reads the rows from a file. There is a
// line for each row of the table, with the id and, in hexadecimal, the values as float32.
func bitsOf(s Spec, rows []Row) (lines []string) {
	for _, r := range rows {
		for i := range s.rows(&r) {
			line := fmt.Sprintf("%q", r.ID)
			for _, e := range r.Embeddings {
				values := append([]float32{}, e[i*s.Dim:(i+1)*s.Dim]...)
				for j, v := range values {
					if s.DType == FP16 {
						values[j] = half.FromFP16(half.ToFP16(v))
					}
				}
				line += "\t" + hex.EncodeToString(appendFloats(nil, FP32, values))
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

// checkLines compares the output of a script, which reads a file for each Spec, with the lines of bitsOf. The script
// prints "end" after each file.
func checkLines(t *testing.T, out string, specs ...Spec) {
	t.Helper()
	files := strings.Split(out, "end\n")
	if len(files) != len(specs)+1 {
		t.Fatalf("%d files, want %d", len(files)-1, len(specs))
	}
	for i, s := range specs {
		got, want := strings.Split(strings.TrimSuffix(files[i], "\n"), "\n"), bitsOf(s, plainRows(s, readBackRows))
		if len(got) != len(want) {
			t.Fatalf("file %d: %d rows, want %d", i, len(got), len(want))
		}
		for row := range got {
			if got[row] != want[row] {
				t.Fatalf("file %d, row %d is\n%s, want\n%s", i, row, got[row], want[row])
			}
		}
	}
}

// readBackRows is the number of rows in a file that other software reads.
const readBackRows = 200

// parquetFiles writes the layouts of Parquet that other software reads back. It returns their Specs and the arguments
// of a script. An argument has the path of a file and the names of the columns of embeddings in the file, separated by
// commas.
func parquetFiles(t *testing.T) (specs []Spec, args []string) {
	perToken, layers, halves := spec(t, Parquet), spec(t, Parquet, 0, 33), spec(t, Parquet, 33)
	perToken.Columns = columnsOf([]int{3, 33}, Tokens)
	layers.Compress = true
	halves.DType, halves.Compress = FP16, true
	specs = []Spec{spec(t, Parquet, 33), layers, perToken, halves}
	for _, s := range specs {
		path := writeAll(t, s, plainRows(s, readBackRows))[0].Path
		args = append(args, strings.Join(append([]string{path}, s.columnNames("embedding")...), ","))
	}
	return specs, args
}

func TestDuckDBReadsParquet(t *testing.T) {
	specs, args := parquetFiles(t)
	checkLines(t, readback.Node(t, []string{"@duckdb/node-api"}, `
import { DuckDBInstance } from '@duckdb/node-api';
const c = await (await DuckDBInstance.create(':memory:')).connect();
for (const arg of process.argv.slice(2)) {
  const [path, ...columns] = arg.split(',');
  const r = await c.runAndReadAll("SELECT * FROM '" + path + "'");
  for (const row of r.getRowObjects())
    console.log(['"' + row.id + '"', ...columns.map(c => Buffer.from(Float32Array.from(row[c].items).buffer).toString('hex'))].join('\t'));
  console.log('end');
  const one = await c.runAndReadAll("SELECT bloom_filter_excludes FROM parquet_bloom_probe('" + path + "', 'id', 'absent')");
  if (one.getRows().length == 0 || one.getRows().some(r => !r[0])) throw new Error('the filter does not exclude an id: ' + one.getRows());
  const stats = await c.runAndReadAll("SELECT stats_max_value FROM parquet_metadata('" + path + "') WHERE path_in_schema = 'id'");
  if (stats.getRows()[0][0] != 'sp|P00199|é') throw new Error('statistics of id: ' + stats.getRows());
}
`, args...), specs...)
}

func TestHyparquetReadsParquet(t *testing.T) {
	specs, args := parquetFiles(t)
	checkLines(t, readback.Node(t, []string{"hyparquet", "hyparquet-compressors"}, `
import { asyncBufferFromFile, parquetReadObjects } from 'hyparquet';
import { compressors } from 'hyparquet-compressors';
for (const arg of process.argv.slice(2)) {
  const [path, ...columns] = arg.split(',');
  for (const row of await parquetReadObjects({ file: await asyncBufferFromFile(path), compressors }))
    console.log(['"' + row.id + '"', ...columns.map(c => Buffer.from(Float32Array.from(row[c]).buffer).toString('hex'))].join('\t'));
  console.log('end');
}
`, args...), specs...)
}

// TestArrowSeesFixedSizeLists checks that the Rust implementation of Arrow reads the embeddings in Parquet files as
// lists of a fixed size, with the right type and values.
func TestArrowSeesFixedSizeLists(t *testing.T) {
	specs, args := parquetFiles(t)
	checkLines(t, readback.Node(t, []string{"parquet-wasm", "apache-arrow"}, `
import { readFileSync } from 'fs';
import { tableFromIPC } from 'apache-arrow';
import { createRequire } from 'module';
const { readParquet } = createRequire(import.meta.url)('parquet-wasm');
process.argv.slice(2).forEach((arg, i) => {
  const [path, ...columns] = arg.split(',');
  const table = tableFromIPC(readParquet(readFileSync(path)).intoIPCStream());
  for (const c of columns) {
    const type = String(table.schema.fields.find(f => f.name == c).type);
    if (type != 'FixedSizeList[24]<Float' + (i == 3 ? '16>' : '32>')) throw new Error(c + ' is ' + type);
  }
  for (const row of table)
    console.log(['"' + row.id + '"', ...columns.map(c => Buffer.from(Float32Array.from(row[c]).buffer).toString('hex'))].join('\t'));
  console.log('end');
});
`, args...), specs...)
}

// textFiles writes TSV files in three layouts: per record, per token, and with float16 values. It returns their paths.
func textFiles(t *testing.T) (specs []Spec, paths []string) {
	perToken, halves := spec(t, TSV, 33), spec(t, TSV, 33)
	perToken.Columns = columnsOf([]int{33}, Tokens)
	halves.DType = FP16
	specs = []Spec{spec(t, TSV, 33), perToken, halves}
	for _, s := range specs {
		paths = append(paths, writeAll(t, s, plainRows(s, readBackRows))[0].Path)
	}
	return specs, paths
}

// TestPythonReadsTSV checks that Python's csv module and NumPy read from TSV files the float32 values that were
// written.
func TestPythonReadsTSV(t *testing.T) {
	specs, paths := textFiles(t)
	checkLines(t, readback.Python(t, "numpy", `
import sys, csv, numpy as np
for i, path in enumerate(sys.argv[1:]):
    f = csv.reader(open(path, encoding='utf-8', newline=''), delimiter='\t', quoting=csv.QUOTE_NONE)
    head = next(f)
    assert head == ['id'] + (['position'] if i == 1 else []) + list(map(str, range(24))), head
    last = None
    for row in f:
        if i == 1:
            n = n + 1 if row[0] == last else 0
            assert row[1] == str(n), row
            last = row[0]
        print('"%s"\t%s' % (row[0], np.array(row[-24:]).astype('<f4').tobytes().hex()))
    print('end')
`, paths...), specs...)
}

// TestTorchReadsPt checks that PyTorch loads the files of format Pt, and that these have the keys, layers and shapes of
// files that fair-esm's extract.py writes.
func TestTorchReadsPt(t *testing.T) {
	s, halves := spec(t, Pt), spec(t, Pt)
	s.Columns = columnsOf([]int{6, 33}, Mean, Residues, CLS)
	halves.Columns, halves.DType = columnsOf([]int{33}, Mean), FP16
	for _, s := range []Spec{s, halves} {
		writeAll(t, s, plainRows(s, 12))
	}
	// The script prints the label of each record and the mean of layer 33, the only column that both outputs have.
	out := readback.Python(t, "torch", `
import sys, glob, torch
def load(path):
    try: return torch.load(path, weights_only=True)
    except TypeError: return torch.load(path)
for folder in sys.argv[1:]:
    for path in sorted(glob.glob(folder + '/*.pt')):
        r = load(path)
        assert r['label'].startswith('sp|P'), r
        if folder == sys.argv[1]:
            n = int(r['label'][4:9])
            assert set(r) == {'label', 'representations', 'mean_representations', 'bos_representations'}
            assert all(set(r[k]) == {6, 33} for k in r if k != 'label')
            assert r['representations'][6].shape == (n % 5, 24) and r['representations'][6].dtype == torch.float32
            assert not r['mean_representations'][6].requires_grad
        m = r['mean_representations'][33]
        print(r['label'].split(' ')[0], m.float().numpy().tobytes().hex())
    print('end')
`, s.Paths()[0], halves.Paths()[0])
	var want string
	for _, s := range []Spec{s, halves} {
		at := slices.Index(s.Columns, Column{Mean, 33})
		for _, r := range plainRows(s, 12) {
			one := Spec{Columns: s.Columns[at : at+1], Dim: s.Dim, DType: s.DType}
			r.Embeddings = r.Embeddings[at : at+1]
			want += strings.ReplaceAll(strings.ReplaceAll(bitsOf(one, []Row{r})[0], "\t", " "), `"`, "") + "\n"
		}
		want += "end\n"
	}
	if out != want {
		t.Errorf("torch reads\n%s, want\n%s", out, want)
	}
}
