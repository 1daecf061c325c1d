package pool

import (
	"io"
	"math"
	"os"
	"strings"
	"testing"
)

// TestNextCapacity checks the sizes, in tokens, of the spans of records into which nextCapacity divides a large file
// with one token a byte. No span may be larger than the maximum. All spans of a run on one device must be full, apart
// from packingLoss. On several devices a span must be at most half of a device's share of the tokens that are left, or
// have the minimum size if this is larger.
func TestNextCapacity(t *testing.T) {
	const size = 1_000_000
	for _, devices := range []int{1, 2, 8, 1000} {
		for _, budget := range []int{1, 3, 64, 8192} {
			most := lookAhead * budget
			f := &fileJob{run: &run{Job: &Job{Devices: make([]Device, devices)}}, File: File{Size: size}}
			f.unread.Store(size)
			for f.position < size {
				n := f.nextCapacity(most, budget)
				left := int(f.unread.Load())
				switch {
				case n > most, n < 1 && budget >= minShare:
					t.Fatalf("%d devices, budget %d, %d bytes left: a span of %d", devices, budget, left, n)
				case devices == 1 && n < most-most/packingLoss:
					t.Fatalf("one device, budget %d, %d bytes left: a span of %d", budget, left, n)
				case devices > 1 && n > max(budget/minShare, left/(sharesLeft*devices)):
					t.Fatalf("%d devices, budget %d, %d bytes left: a span of %d", devices, budget, left, n)
				}
				n = min(max(n, 1), left) // a span has at least one record, and so one token
				f.position, f.tokens = f.position+int64(n), f.tokens+int64(n)
				f.unread.Add(-int64(n))
			}
			// The number of unread bytes may be wrong, because other files may change after their sizes were read.
			for _, left := range []int64{0, -size, math.MaxInt64} {
				f.unread.Store(left)
				if n := f.nextCapacity(most, budget); n < budget/minShare || n > most {
					t.Errorf("%d devices, budget %d, %d bytes left: a span of %d", devices, budget, left, n)
				}
			}
		}
	}
}

// TestUnread checks that run.unread, the number of bytes that are left to be read, is 0 when all files have ended. The
// files are plain or compressed. One file fails, and one cannot be opened. A run that is a shard reads parts of the
// files. The other run reads whole files, and a pipe.
func TestUnread(t *testing.T) {
	for _, shard := range []Shard{{}, {1, 3}, {2, 3}} {
		b, _, records := bigFile(t, 2)
		b.add("fails.faa", fasta(records)+">bad\nMK*V\n"+fasta(randomRecords(8, 5, 6)))
		b.add("blocks.faa.gz", string(gzipped([]byte(fasta(records[:20])), true))+string(gzipped([]byte(fasta(records[20:])), true)))
		b.add("packed.faa.gz", string(gzipped([]byte(fasta(records)), false)))
		gone := b.add("gone.faa", fasta(records))
		if shard.N > 0 {
			if err := b.job.Divide(shard); err != nil {
				t.Fatal(err)
			}
		} else {
			b.add("pipe.faa", fasta(records))
			f := &b.job.Files[len(b.job.Files)-1]
			f.Size = 0
			if err := f.connect(t.Context(), b.job.Reading, func() (io.ReadCloser, error) {
				return io.NopCloser(strings.NewReader(fasta(records))), nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Remove(gone); err != nil {
			t.Fatal(err)
		}
		release, err := Claim("", b.job)
		if err != nil {
			t.Fatal(err)
		}
		r := &run{Job: b.job, devicesLeft: len(b.job.Devices)}
		todo, err := r.prepare(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := r.embed(t.Context(), todo); err != nil || len(r.summary.Files) == 0 {
			t.Errorf("shard %v: %d finished, %v", shard, len(r.summary.Files), err)
		}
		r.folder.close()
		release()
		if n := r.unread.Load(); n != 0 {
			t.Errorf("shard %v: %d bytes are unread; failed: %v", shard, n, r.summary.Failed)
		}
	}
}
