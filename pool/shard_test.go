package pool

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"seqembed/internal/seqio"
	"seqembed/internal/store"
	"seqembed/kernels"
)

// shardBench returns a bench with a FASTA file, a FASTQ file and a compressed file, with random records. The compressed
// file is in the blocks of bgzip if seed is odd, and one gzip stream otherwise. Some ids occur more than once.
func shardBench(t *testing.T, seed uint64) *bench {
	b := newBench(t)
	rng := rand.New(rand.NewPCG(seed, 9))
	b.job.Reading.Duplicates = seqio.DuplicateSuffix
	b.job.Output.Template.Parameters["duplicates"] = "suffix"
	for _, name := range []string{"a.faa", "b.fq", "c.faa.gz"} {
		var content bytes.Buffer
		for i := range 20 + rng.IntN(200) {
			seq := make([]byte, 1+rng.IntN(30))
			for j := range seq {
				seq[j] = residues[rng.IntN(len(residues))]
			}
			id := fmt.Sprintf("r%d text of %[1]d", i)
			if rng.IntN(4) == 0 {
				id = fmt.Sprintf("r%d", rng.IntN(i+1))
			}
			if name == "b.fq" {
				fmt.Fprintf(&content, "@%s\n%s\n+\n@%s\n", id, seq, strings.Repeat("I", len(seq)-1))
			} else {
				fmt.Fprintf(&content, ">%s\n%s\n", id, seq)
			}
		}
		text := content.String()
		if strings.HasSuffix(name, ".gz") {
			content.Reset()
			block := len(text)
			if seed%2 == 1 {
				block = 500
			}
			for part := range slices.Chunk([]byte(text), block) {
				content.Write(gzipped(part, seed%2 == 1))
			}
			text = content.String()
		}
		b.add(name, text)
		b.job.Files[len(b.job.Files)-1].Name, _, _ = strings.Cut(name, ".")
	}
	return b
}

// gzipped returns a gzip member, which is a block of bgzip if block is set.
func gzipped(content []byte, block bool) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if block {
		z.Extra = []byte("BC\x02\x00__") // __ is replaced by the length of the block minus 1
	}
	_, _ = z.Write(content) // a bytes.Buffer cannot fail
	_ = z.Close()
	if block {
		binary.LittleEndian.PutUint16(b.Bytes()[16:], uint16(b.Len()-1))
	}
	return b.Bytes()
}

// shard returns a copy of b whose job is the shard s, with an output folder of its own.
func (b *bench) shard(s Shard) *bench {
	b.Helper()
	next := b.again()
	next.out = filepath.Join(filepath.Dir(b.out), s.String())
	next.job.Output.Dir = next.out
	if err := next.job.Divide(s); err != nil {
		b.Fatal(err)
	}
	return next
}

// merger returns a Merge of the n shards that b.shard makes, and a bench for its output folder.
func (b *bench) merger(n int) (*Merge, *bench) {
	to := b.again()
	to.out = filepath.Join(filepath.Dir(b.out), fmt.Sprintf("merged%d", n))
	m := &Merge{Out: to.out}
	for i := range n {
		m.Dirs = append(m.Dirs, filepath.Join(filepath.Dir(b.out), Shard{i + 1, n}.String()))
	}
	return m, to
}

// merge runs m, which must join want outputs.
func (b *bench) merge(m *Merge, want int) []Merged {
	b.Helper()
	done, failed, err := m.Run(b.Context())
	if err != nil || len(failed) > 0 || len(done) != want {
		b.Fatalf("%d outputs merged, failed %v, %v", len(done), failed, err)
	}
	return done
}

// withoutManifest returns the contents of an output folder except for its manifest.
func (b *bench) withoutManifest() map[string]string {
	files := b.outputs()
	delete(files, store.ManifestName)
	return files
}

// TestMergeEqualsOneRun divides random inputs among 1 to 7 shards, in all formats. The merged outputs must have the
// same bytes as those of one run, and almost the same entries in the manifest (see sameEntries).
func TestMergeEqualsOneRun(t *testing.T) {
	everyFormat := []struct {
		format store.Format
		change func(o *Output, j *Job)
	}{
		{store.Parquet, func(o *Output, j *Job) {}},
		{store.Parquet, func(o *Output, j *Job) {
			j.Long, j.MaxLength, j.Overlap, j.Windows, o.Windows, o.DType = LongWindow, 8, 2, true, true, store.FP16
		}},
		{store.Npy, func(o *Output, j *Job) { o.Columns = everyColumn() }},
		{store.Safetensors, func(o *Output, j *Job) { o.Columns = everyColumn()[:2] }},
		{store.H5, func(o *Output, j *Job) {}},
		{store.H5, func(o *Output, j *Job) { o.Matrix, o.DType = true, store.FP16 }},
		{store.TSV, func(o *Output, j *Job) {
			j.Long, j.MaxLength, j.Windows, o.Windows = LongWindow, 8, true, true
			j.Reading.MinLength = 5
		}},
		{store.Pt, func(o *Output, j *Job) {}},
		{store.VirNucPro, func(o *Output, j *Job) {}},
	}
	for i, c := range everyFormat {
		t.Run(fmt.Sprint(i, c.format), func(t *testing.T) {
			b := shardBench(t, uint64(i))
			b.job.Output.Format, b.job.Output.Meta = c.format, map[string]string{"model": "x"}
			c.change(&b.job.Output, b.job)
			b.setColumns(b.job.Output.Columns...)
			b.run()
			want := b.withoutManifest()
			n := 1 + i%7
			for k := range n {
				s := b.shard(Shard{k + 1, n})
				if summary := s.run(); len(summary.Failed) > 0 {
					t.Fatal(summary.Failed)
				}
			}
			m, to := b.merger(n)
			b.merge(m, 3)
			if got := to.withoutManifest(); !maps.Equal(got, want) {
				t.Fatalf("%d shards: %q merged, %q of one run, or other bytes", n, slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
			}
			b.sameEntries(to)
			for _, again := range b.merge(m, 3) {
				if !again.Resumed {
					t.Errorf("%s was joined again", again.Path)
				}
			}
		})
	}
}

// sameEntries checks that the outputs of two folders have the same entries in their manifests, apart from times, paths
// of outputs and the number of repeated records.
func (b *bench) sameEntries(other *bench) {
	b.Helper()
	a, err := store.ReadManifest(b.out)
	c, err2 := store.ReadManifest(other.out)
	if err := cmp.Or(err, err2); err != nil {
		b.Fatal(err)
	}
	for path := range a.Outputs() {
		want, file, _ := a.Find(path)
		rel, _ := filepath.Rel(b.out, path)
		got, other, ok := c.Find(filepath.Join(other.out, rel))
		if !ok || got.Finished.IsZero() || file.SHA256 != other.SHA256 || file.Size != other.Size {
			b.Fatalf("%s: the merged entry is %+v", path, got)
		}
		got.Started, got.Finished, got.Outputs, got.Repeated = want.Started, want.Finished, want.Outputs, want.Repeated
		if !reflect.DeepEqual(got, want) {
			b.Fatalf("%s: the merged entry is\n%+v, that of one run\n%+v", path, got, want)
		}
	}
}

// TestShardsDivideAllRecords checks that all shards of a run have the same plan, that their parts together cover every
// byte of every input once, and that all shards have nearly the same number of bytes. A byte of a compressed file
// counts three times (see inflation).
func TestShardsDivideAllRecords(t *testing.T) {
	b := shardBench(t, 1)
	for _, n := range []int{1, 2, 3, 4, 5, 6, 7, 100} {
		var plan []byte
		covered := map[string]int64{}
		work, total := make([]int64, n), int64(0)
		for i := range n {
			s := b.shard(Shard{i + 1, n})
			if i > 0 && !bytes.Equal(plan, s.job.plan) {
				t.Fatalf("%d shards have different plans", n)
			}
			if plan = s.job.plan; strings.Contains(string(plan), `"interleaved":true`) {
				t.Fatalf("a file of bgzip is not cut: %s", plan)
			}
			for _, f := range s.job.Files {
				if f.Part.From > covered[f.Path] && i == 0 || f.Part.From != covered[f.Path] {
					t.Fatalf("%d shards: %s: a part begins at %d, that before ends at %d", n, f.Path, f.Part.From, covered[f.Path])
				}
				covered[f.Path] = f.Part.To
				weight := int64(1)
				if f.Part.Compressed {
					weight = inflation
				}
				work[i] += weight * (f.Part.To - f.Part.From)
			}
		}
		for _, f := range b.job.Files {
			if covered[f.Path] != f.Size {
				t.Fatalf("%d shards: %s: the parts end at %d of %d", n, f.Path, covered[f.Path], f.Size)
			}
		}
		for _, w := range work {
			total += w
		}
		for i, w := range work {
			if off := w - total/int64(n); max(off, -off) > 4*inflation {
				t.Errorf("%d shards: shard %d has %d of %d bytes", n, i+1, w, total)
			}
		}
	}
}

// TestInputOfAnotherSizeThanDivided checks that a shard does not embed a file that has changed since it was divided.
// Otherwise no shard would have the records that were added, and the last shard might end inside a record.
func TestInputOfAnotherSizeThanDivided(t *testing.T) {
	records := fasta(randomRecords(1, upTo(40)...))
	for name, content := range map[string]string{"a.faa": records, "a.faa.gz": string(gzipped([]byte(records), true))} {
		for _, size := range []int64{int64(len(content)) + 10, int64(len(content)) - 10} {
			b := newBench(t)
			b.add(name, content)
			last := b.shard(Shard{2, 2})
			if err := os.Truncate(filepath.Join(b.in, name), size); err != nil { // a larger size adds zeros
				t.Fatal(err)
			}
			if s := last.run(); len(s.Failed) != 1 || !errors.Is(s.Failed[0].Err, ErrChanged) {
				t.Errorf("%s of %d bytes instead of %d: failed %v", name, size, len(content), s.Failed)
			}
		}
	}
}

// TestShardIsResumed interrupts each of two shards inside a file. Merge must refuse an interrupted shard. A second run
// must complete the shard, and a third run must compute nothing.
func TestShardIsResumed(t *testing.T) {
	b := shardBench(t, 2)
	b.run()
	for i := range 2 {
		s := b.shard(Shard{i + 1, 2})
		ctx, interrupt := context.WithCancel(t.Context())
		s.fake.fault = func(kernels.Batch) error {
			if s.fake.calls.Load() > 3 {
				interrupt()
			}
			return nil
		}
		if _, err := s.runWithin(ctx, time.Minute); !errors.Is(err, ErrInterrupted) {
			t.Fatal(err)
		}
		interrupt()
		m, _ := b.merger(2)
		if _, _, err := m.Run(t.Context()); !errors.Is(err, ErrShardMissing) {
			t.Fatal(err)
		}
		s = b.shard(Shard{i + 1, 2})
		first := s.run()
		if s.fake.calls.Load() == 0 || len(first.Failed) > 0 {
			t.Fatalf("%+v", first)
		}
		s = b.shard(Shard{i + 1, 2})
		if again := s.run(); len(again.Files) > 0 || s.fake.calls.Load() > 0 || len(again.Resumed) != len(s.job.Files) {
			t.Errorf("a complete shard is computed again: %+v", again)
		}
	}
	m, to := b.merger(2)
	b.merge(m, 3)
	if !maps.Equal(to.withoutManifest(), b.withoutManifest()) {
		t.Error("the merged outputs are not those of one run")
	}
}

// TestMergeRefuses checks that Merge writes nothing and returns an error if shards are missing or do not belong
// together. If a shard is damaged, only the output to which it belongs must fail.
func TestMergeRefuses(t *testing.T) {
	b := shardBench(t, 3)
	run := func(change func(*bench), s Shard) {
		t.Helper()
		next := b.again()
		change(next)
		next.shard(s).run()
	}
	same := func(*bench) {}
	refuse := func(kind error, parts ...string) {
		t.Helper()
		m, to := b.merger(3)
		_, _, err := m.Run(t.Context())
		if !errors.Is(err, kind) {
			t.Fatalf("%v is not %v", err, kind)
		}
		for _, part := range parts {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%v does not mention %q", err, part)
			}
		}
		if names := to.names(); len(names) > 0 {
			t.Errorf("%q were written", names)
		}
	}
	dir := func(i int) string { return filepath.Join(filepath.Dir(b.out), Shard{i, 3}.String()) }
	run(same, Shard{1, 3})
	run(same, Shard{3, 3})
	refuse(ErrShardMissing, dir(2))
	if err := os.MkdirAll(dir(2), 0o777); err != nil {
		t.Fatal(err)
	}
	plan, err := os.ReadFile(filepath.Join(dir(1), "shards.fake.npy.json"))
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir(2), "shards.fake.npy.json"), string(plan))
	refuse(ErrShardMissing, "2-of-3 of ")

	other := func(next *bench) {
		next.job.Output.Template.Parameters = maps.Clone(next.job.Output.Template.Parameters)
		next.job.Output.Template.Parameters["pool"] = "max"
	}
	run(other, Shard{2, 3})
	refuse(ErrShardsDiffer, `pool "`, "shard-")
	if err := os.RemoveAll(dir(2)); err != nil {
		t.Fatal(err)
	}
	run(func(next *bench) { next.job.Files = next.job.Files[1:] }, Shard{2, 3})
	refuse(ErrShardsDiffer, "other inputs")
	if err := os.RemoveAll(dir(2)); err != nil {
		t.Fatal(err)
	}
	run(same, Shard{2, 3})
	shards, err := filepath.Glob(filepath.Join(dir(2), "*"+store.ShardSuffix+"*"))
	if err != nil || len(shards) == 0 {
		t.Fatal(shards, err)
	}
	content, err := os.ReadFile(shards[0])
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)-2] ^= 1
	writeFile(t, shards[0], string(content))
	m, to := b.merger(3)
	_, failed, err := m.Run(t.Context())
	if err != nil || len(failed) != 1 || !strings.Contains(failed[0].Err.Error(), shards[0]) {
		t.Errorf("a damaged shard: failed %v, %v", failed, err)
	}
	if bad, _ := filepath.Glob(filepath.Join(to.out, ".*")); len(bad) > 0 {
		t.Errorf("%q are left", bad)
	}
}

// TestMergeOfSomeShards joins shards although one is missing. The result must name the missing shard. After all shards
// have been made, Merge must refuse to replace the incomplete outputs. With Merge.Force it must replace them.
func TestMergeOfSomeShards(t *testing.T) {
	b := shardBench(t, 4)
	b.run()
	b.shard(Shard{2, 3}).run()
	b.shard(Shard{3, 3}).run()
	m, to := b.merger(3)
	m.AllowMissing = true
	m.Dirs = m.Dirs[1:]
	done, failed, err := m.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	lacking := len(failed)
	for _, d := range done {
		lacking += len(d.Missing)
	}
	if lacking == 0 || len(done)+len(failed) != 3 {
		t.Fatalf("%+v, %v", done, failed)
	}
	b.shard(Shard{1, 3}).run()
	m, _ = b.merger(3)
	if _, _, err := m.Run(t.Context()); !errors.Is(err, ErrMixture) {
		t.Fatalf("%v: an output without some of its records counts as complete", err)
	}
	m, _ = b.merger(3)
	m.Force = true
	b.merge(m, 3)
	if !maps.Equal(to.withoutManifest(), b.withoutManifest()) {
		t.Error("the merged outputs are not those of one run")
	}
}

// TestMergeOfRepeatedIDs joins two shards that have a record with the same id. Under the policy "error" the output must
// fail, and with Merge.Duplicates "suffix" the second record must get another id.
func TestMergeOfRepeatedIDs(t *testing.T) {
	b := newBench(t)
	b.job.Output.Template.Parameters["duplicates"] = "error"
	b.add("a.faa", strings.Repeat(">x\nMKV\n", 1)+strings.Repeat(">y\nMKVMKVMKV\n", 1)+">x\nMKKV\n")
	for i := range 2 {
		if s := b.shard(Shard{i + 1, 2}).run(); len(s.Failed) > 0 {
			t.Fatal(s.Failed)
		}
	}
	m, to := b.merger(2)
	_, failed, err := m.Run(t.Context())
	if err != nil || len(failed) != 1 || !errors.Is(failed[0].Err, seqio.ErrDuplicateID) {
		t.Fatal(failed, err)
	}
	m, _ = b.merger(2)
	m.Duplicates = "suffix"
	b.merge(m, 1)
	if ids, _ := to.rows("a"); !slices.Equal(ids, []string{"x", "y", "x_2"}) {
		t.Errorf("the ids are %q", ids)
	}
}

// TestMergeOfOneRecordEach joins two shards of one record each. Both records must be in the output, although each is
// the first of its shard.
func TestMergeOfOneRecordEach(t *testing.T) {
	b := newBench(t)
	b.add("a.faa", ">u\nMKV\n>v\nMKK\n")
	for i := range 2 {
		b.shard(Shard{i + 1, 2}).run()
	}
	m, to := b.merger(2)
	b.merge(m, 1)
	to.check("a", []entryOf{{"u", "MKV"}, {"v", "MKK"}})
}

// TestShardsInOneFolder checks that shards may share an output folder and can be merged from that folder, and that a
// shard of a run with another number of shards is refused in that folder.
func TestShardsInOneFolder(t *testing.T) {
	b := shardBench(t, 5)
	b.run()
	in := func(s Shard) *bench {
		next := b.shard(s)
		next.job.Output.Dir = filepath.Join(filepath.Dir(b.out), "all")
		return next
	}
	in(Shard{1, 2}).run()
	if _, err := in(Shard{2, 3}).job.Run(t.Context()); !errors.Is(err, ErrMixture) {
		t.Fatal(err)
	}
	in(Shard{2, 2}).run()
	m, to := b.merger(2)
	m.Dirs = []string{filepath.Join(filepath.Dir(b.out), "all")}
	b.merge(m, 3)
	if !maps.Equal(to.withoutManifest(), b.withoutManifest()) {
		t.Error("the merged outputs are not those of one run")
	}
}
