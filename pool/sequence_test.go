package pool

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"seqembed/internal/seqio"
	"seqembed/internal/store"
	"seqembed/transformer"
)

// computed returns the number of sequences that the devices of a bench have computed.
func (b *bench) computed() (n int) {
	for _, batch := range b.seen.batches {
		n += batch.Sequences
	}
	return n
}

// everyColumn returns columns with all poolings of two layers.
func everyColumn() (list []store.Column) {
	for _, p := range store.Poolings() {
		list = append(list, store.Column{Pooling: p, Layer: 3}, store.Column{Pooling: p, Layer: 7})
	}
	return list
}

// TestEqualSequencesAreComputedOnce runs a file in which most sequences occur several times, in the same span or in
// different ones, with several devices. A repeated sequence must not be computed again, and the output must be that of
// a run that computes every record.
func TestEqualSequencesAreComputedOnce(t *testing.T) {
	for name, columns := range map[string][]store.Column{"mean": oneMean, "all": everyColumn()} {
		for _, long := range []LongPolicy{LongTruncate, LongWindow} {
			t.Run(fmt.Sprintf("%s, %s", name, long), func(t *testing.T) {
				records := randomRecords(1, upTo(40)...)
				for i := range 160 {
					records = append(records, entryOf{fmt.Sprintf("again_%d", i), records[(i*i)%40].seq})
				}
				records = append(records, entryOf{"lower", strings.ToLower(records[0].seq)})
				outputs := [2]map[string]string{}
				for round, limit := range []int{0, DefaultKeptBytes} {
					b := newBench(t)
					b.job.Long, b.job.MaxLength, b.job.KeptBytes = long, 30, limit
					b.setColumns(columns...)
					for range 2 {
						b.job.Devices = append(b.job.Devices, b.fake.device(fmt.Sprint("fake", len(b.job.Devices))))
					}
					b.add("a.faa", fasta(records))
					s := b.run()
					if s.Records != 201 || s.Files[0].Records != 201 {
						t.Fatalf("%d records", s.Records)
					}
					repeated := []int64{0, 161}[round]
					if s.Repeated != repeated || s.Files[0].Repeated != repeated {
						t.Errorf("limit %d: %d records are repeated, want %d", limit, s.Repeated, repeated)
					}
					if err := b.job.manifest.Update(); err != nil {
						t.Fatal(err)
					}
					if entry, _, ok := b.job.manifest.Find(s.Files[0].Outputs[0].Path); !ok || entry.Repeated != repeated {
						t.Errorf("the manifest has %d repeated records, want %d", entry.Repeated, repeated)
					}
					if round == 1 && long == LongTruncate && b.computed() != 40 {
						t.Errorf("%d sequences are computed, want 40", b.computed())
					}
					outputs[round] = b.outputs()
				}
				for path, want := range outputs[0] {
					if path != store.ManifestName && outputs[1][path] != want {
						t.Errorf("%s differs if equal sequences are computed once", path)
					}
				}
				if len(outputs[0]) != len(outputs[1]) {
					t.Errorf("%d and %d files", len(outputs[0]), len(outputs[1]))
				}
			})
		}
	}
}

// TestLatestIsBounded adds random sequences, many of them equal, to a latest, which keeps recent sequences of a file.
// The size of the sequences that it keeps must never exceed the limit, and only a sequence with equal tokens may be
// taken for a known one.
func TestLatestIsBounded(t *testing.T) {
	job := &Job{Tokenizer: transformer.ESM2.NewTokenizer(), Covered: fakeCovered, Output: Output{Dim: 5, Columns: everyColumn()}}
	l := latest{limit: 20_000}
	rng, kept, known := rand.New(rand.NewPCG(1, 1)), 0, 0
	for i := range 3000 {
		seq := strings.Repeat(residues[rng.IntN(3):][:4], 1+rng.IntN(12))
		if i%100 == 99 {
			seq = strings.Repeat("W", 500) // larger than the limit
		}
		rec, err := job.newRecord("f", seqio.Record{ID: "x", Seq: []byte(seq)})
		if err != nil {
			t.Fatal(err)
		}
		own := rec.windows[0].seq
		l.unify(job, rec)
		got := rec.windows[0].seq
		if !slices.Equal(got.ids, own.ids) {
			t.Fatalf("%q is taken as another sequence", seq)
		}
		if rec.repeated() != (got != own) || len(seq) == 500 && (rec.repeated() || own.kept) {
			t.Fatalf("%q is repeated: %v", seq, rec.repeated())
		}
		if rec.repeated() {
			known++
		}
		size := 0
		for _, s := range l.known {
			size += job.keptSize(s)
		}
		if size != l.bytes || l.bytes > l.limit || len(l.order) != len(l.known) {
			t.Fatalf("%d bytes in %d sequences, %d counted, %d keys, limit %d", size, len(l.known), l.bytes, len(l.order), l.limit)
		}
		kept = max(kept, len(l.known))
	}
	if kept < 5 || kept > 30 || known == 0 {
		t.Errorf("at most %d sequences are kept, %d are known", kept, known)
	}
}

// TestRepeatsOfASequenceThatDoesNotFit checks several records with the same sequence, which does not fit the memory. If
// bad records are skipped, all of these records must be left out. Otherwise the first of them must fail the file.
func TestRepeatsOfASequenceThatDoesNotFit(t *testing.T) {
	big := strings.Repeat("M", 60)
	content := ">a\nMKV\n>big1\n" + big + "\n>b\nMKV\n>big2\n" + big + "\n>c\nMKL\n"
	b := newBench(t)
	b.fake.memory, b.job.Reading.OnBad = 50, seqio.BadSkip
	b.add("a.faa", content)
	s := b.run()
	if s.Records != 3 || s.Skipped != 2 || s.Repeated != 1 || s.Files[0].Skipped[reasonMemory] != 2 {
		t.Errorf("%d records, %d skipped, %d repeated", s.Records, s.Skipped, s.Repeated)
	}
	if ids, _ := b.rows("a"); !slices.Equal(ids, []string{"a", "b", "c"}) {
		t.Errorf("rows %q", ids)
	}
	if want := []string{"a.faa:3 big1", "a.faa:7 big2"}; len(b.seen.skipped) != 2 || !strings.HasPrefix(b.seen.skipped[0], want[0]) || !strings.HasPrefix(b.seen.skipped[1], want[1]) {
		t.Errorf("skipped %q, want %q", b.seen.skipped, want)
	}

	b = newBench(t)
	b.fake.memory = 50
	b.add("a.faa", content)
	if s := b.run(); len(s.Failed) != 1 || !errors.Is(s.Failed[0].Err, ErrMemory) || !strings.Contains(s.Failed[0].Err.Error(), `:3: record "big1"`) {
		t.Errorf("failed: %v", s.Failed)
	}
}
