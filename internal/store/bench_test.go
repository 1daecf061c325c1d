package store

import (
	"fmt"
	"runtime"
	"testing"
)

// BenchmarkRecords writes records of 320 values in every format, one record per operation. The metric MB is the memory
// in MiB that the process has taken from the system. This number never decreases. To measure one format, run its
// benchmark alone, with -benchtime 1000000x for a million records.
func BenchmarkRecords(b *testing.B) {
	matrix := spec(b, H5, 6)
	matrix.Matrix = true
	compressed := spec(b, Parquet, 6)
	compressed.Compress = true
	specs := map[string]Spec{"h5-matrix": matrix, "parquet-compressed": compressed}
	for _, f := range Formats() {
		specs[string(f)] = spec(b, f, 6)
	}
	for name, s := range specs {
		b.Run(name, func(b *testing.B) {
			s.Dim = 320
			row := makeRows(s, 100)[99]
			w, err := Create(s)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(4 * int64(s.Dim))
			for i := 0; b.Loop(); i++ {
				row.ID = fmt.Sprintf("tr|A0A%07d|A0A%07d_HUMAN", i, i)
				row.Embeddings[0][0] = float32(i + 1)
				if err := w.Write(row); err != nil {
					b.Fatal(err)
				}
			}
			if _, err := w.Commit(); err != nil {
				b.Fatal(err)
			}
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			b.ReportMetric(float64(m.Sys>>20), "MB")
		})
	}
}
