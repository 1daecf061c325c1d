package pool

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"seqembed/internal/store"
)

// BenchmarkMerge measures the joining of shards that together have about b.N records, each with an embedding of 320
// values. A shard has either consecutive records of the input, or every n-th block of 64 records, where n is the number
// of shards.
func BenchmarkMerge(b *testing.B) {
	for _, shards := range []int{10, 1000} {
		for _, interleaved := range []bool{false, true} {
			b.Run(fmt.Sprintf("shards=%d/interleaved=%t", shards, interleaved), func(b *testing.B) {
				m := mergeOf(b, shards, max(b.N, shards), interleaved)
				b.ResetTimer()
				if _, failed, err := m.Run(b.Context()); err != nil || len(failed) > 0 {
					b.Fatal(failed, err)
				}
				var memory runtime.MemStats
				runtime.ReadMemStats(&memory)
				b.ReportMetric(float64(memory.Sys)/1e6, "MB") // memory of the process, also for writing the shards
			})
		}
	}
}

// mergeOf writes shards that together have the given number of records, and returns a Merge that joins them.
func mergeOf(b *testing.B, shards, records int, interleaved bool) *Merge {
	const dim = 320
	root := b.TempDir()
	m := &Merge{Out: filepath.Join(root, "out")}
	plan := shardPlan{Version: planVersion, Kind: "m.parquet", Shards: shards}
	output := plannedOutput{Name: "x.m.parquet", Size: int64(shards), Interleaved: interleaved}
	for i := range shards {
		output.Parts = append(output.Parts, plannedPart{i + 1, int64(i), int64(i) + 1})
	}
	plan.Outputs = []plannedOutput{output}
	content, err := json.Marshal(plan)
	if err != nil {
		b.Fatal(err)
	}
	for i := range shards {
		dir := filepath.Join(root, fmt.Sprint(i))
		if err := os.Mkdir(dir, 0o777); err != nil {
			b.Fatal(err)
		}
		writeFile(b, filepath.Join(dir, "shards.m.parquet.json"), string(content))
		writeShard(b, dir, output, i, shards, dim, records)
		m.Dirs = append(m.Dirs, dir)
	}
	return m
}

// writeShard writes shard i, counted from 0, of the output o. records is the number of records of all shards together.
func writeShard(b *testing.B, dir string, o plannedOutput, i, shards, dim, records int) {
	s := Shard{i + 1, shards}
	w, err := store.Create(store.Spec{Dir: dir, Base: "x", Model: "m", Format: store.Parquet, Dim: dim, Columns: oneMean, Shard: s.String()})
	if err != nil {
		b.Fatal(err)
	}
	values := make([]float32, dim)
	for k := range records / shards {
		for v := range values {
			values[v] = float32(math.Sin(float64(k*dim + v + i)))
		}
		index := k
		if o.Interleaved {
			index = (k/64*shards+i)*64 + k%64 // the blocks of 64 records alternate between the shards
		}
		if err := w.Write(store.Row{ID: fmt.Sprintf("record_%d_%d", i, k), Index: int64(index), Length: 80, Tokens: 82, Embeddings: [][]float32{values}}); err != nil {
			b.Fatal(err)
		}
	}
	files, err := w.Commit()
	if err != nil {
		b.Fatal(err)
	}
	m, err := store.ReadManifest(dir)
	if err == nil {
		err = m.Append(b.Context(), store.Entry{Model: "m", Input: store.Source{Path: "x", Size: o.Size}, Outputs: files, Finished: time.Now(),
			Parameters: map[string]string{shardParameter: o.parameter(s, o.Parts[i])}}, nil)
	}
	if err != nil {
		b.Fatal(err)
	}
}
