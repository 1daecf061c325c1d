package store

import (
	"bytes"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
)

// shardSpec returns the Spec of a shard of an output with columns per record, token and residue.
func shardSpec(dir string) Spec {
	return Spec{Dir: dir, Base: "a\xff%b", Model: "m", Format: H5, Kind: Nucleotide, Dim: 2, DType: FP16, Windows: true,
		Columns: []Column{{Mean, 3}, {Tokens, 4}, {Residues, 4}}, Meta: map[string]string{"model": "x\n"}, Shard: "2-of-3"}
}

func shardRows() []Row {
	return []Row{
		{ID: "a\tb", Description: "d é", Index: 1 << 40, Length: 5, Tokens: 3, Truncated: true, RecordLength: 9, Start: 1, End: 5,
			Residues: []Letters{{1, 5}}, Embeddings: [][]float32{{1, 70000}, {1, 2, 3, 4, 5, 6}, {7, 8}}},
		{ID: "a\tb", Tokens: 1, Start: 4, End: 4, Embeddings: [][]float32{{-1, 0}, {1, 2}, {}}},
	}
}

// writeTestShard writes a shard with the rows of shardRows and returns its path.
func writeTestShard(t testing.TB) string {
	t.Helper()
	w, err := Create(shardSpec(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range shardRows() {
		if err := w.Write(r); err != nil {
			t.Fatal(err)
		}
	}
	files, err := w.Commit()
	if err != nil || len(files) != 1 || filepath.Base(files[0].Path) != "a%FF%25b.m.h5.shard-2-of-3" || w.Overflows() != 1 {
		t.Fatalf("%+v, %d overflows, %v", files, w.Overflows(), err)
	}
	return files[0].Path
}

// readShard returns all rows of a shard.
func readShard(s *Shard) (rows []Row, err error) {
	for {
		r, err := s.Next()
		if err == io.EOF {
			return rows, nil
		}
		if err != nil {
			return nil, err
		}
		rows = append(rows, *r)
	}
}

// TestColumnsOfShards checks that the limit on the number of columns is the same for a shard as for a whole output,
// although a shard has all its columns in one file.
func TestColumnsOfShards(t *testing.T) {
	for _, columns := range [][]Column{
		columnsOf(makeLayers(maxParquetColumns), Mean, Tokens, Residues), columnsOf(makeLayers(maxParquetColumns+1), Mean)} {
		s := spec(t, Parquet, 1)
		s.Columns = columns
		_, whole := s.validate()
		s.Shard = "2-of-3"
		if _, shard := s.validate(); (whole == nil) != (shard == nil) {
			t.Errorf("%d columns: a whole output gives the error %v, a shard %v", len(columns), whole, shard)
		}
	}
}

// TestShardHoldsTheRows checks that a shard returns the rows and the Spec with which it was written, and that reading a
// shard that was cut after any number of bytes is an error.
func TestShardHoldsTheRows(t *testing.T) {
	path := writeTestShard(t)
	s, err := OpenShard(path)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := readShard(s)
	s.Close()
	want := shardRows()
	equal := slices.EqualFunc(rows, want, func(a, b Row) bool {
		same := slices.EqualFunc(a.Embeddings, b.Embeddings, slices.Equal[[]float32])
		a.Embeddings, b.Embeddings = nil, nil
		return same && reflect.DeepEqual(a, b)
	})
	if err != nil || !equal {
		t.Fatalf("%+v, %v", rows, err)
	}
	spec := shardSpec("")
	spec.Shard = ""
	if meta := s.Spec.Meta; !maps.Equal(meta, spec.Meta) || !reflect.DeepEqual(s.Spec, spec) {
		t.Errorf("%+v, want %+v", s.Spec, spec)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if sum, err := Hash(t.Context(), bytes.NewReader(content)); err != nil || sum != s.SHA256() {
		t.Errorf("the digest is %s, want %s", s.SHA256(), sum)
	}
	for n := range content {
		if err := os.WriteFile(path, content[:n], 0o666); err != nil {
			t.Fatal(err)
		}
		s, err := OpenShard(path)
		if err != nil {
			continue
		}
		if _, err := readShard(s); err == nil {
			t.Errorf("a shard cut after %d of %d bytes is read without an error", n, len(content))
		}
		s.Close()
	}
}

// FuzzShard reads files that are no shards, or damaged shards. Reading must not panic, and not return more values than
// the file has bytes for.
func FuzzShard(f *testing.F) {
	content, err := os.ReadFile(writeTestShard(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(content)
	f.Add(content[:len(content)-9])
	f.Add([]byte(`{"Version":1,"Spec":{"Dim":1,"Columns":[{}]}}` + "\n\x01\x00\x00\x00\xff\xff\xff\xff\x0f\x00\x00"))
	f.Fuzz(func(t *testing.T, content []byte) {
		path := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(path, content, 0o666); err != nil {
			t.Fatal(err)
		}
		s, err := OpenShard(path)
		if err != nil {
			return
		}
		defer s.Close()
		values := 0
		rows, _ := readShard(s)
		for _, r := range rows {
			for _, e := range r.Embeddings {
				values += len(e)
			}
		}
		if 4*values > len(content) {
			t.Errorf("%d values in %d bytes", values, len(content))
		}
	})
}
