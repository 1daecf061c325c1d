package pool

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"seqembed/internal/store"
	"seqembed/kernels"
)

// bigFile returns a bench with one file, which the reader divides into about forty spans of records. The bench has the
// given number of fake devices, each with a budget of 8 tokens.
func bigFile(t *testing.T, devices int) (b *bench, fakes []*fake, records []entryOf) {
	b = newBench(t)
	b.job.Devices = nil
	for i := range devices {
		f := &fake{columns: oneMean, budget: 8}
		fakes = append(fakes, f)
		b.job.Devices = append(b.job.Devices, f.device("fake"+string(rune('0'+i))))
	}
	records = randomRecords(7, upTo(50)...)
	b.add("big.faa", fasta(records))
	return b, fakes, records
}

// barrier makes each device wait in its first batch until all devices have one, so that all devices take part in the
// run.
func barrier(t *testing.T, fakes ...*fake) {
	var arrived atomic.Int64
	all := make(chan struct{})
	for _, f := range fakes {
		f.fault = func(kernels.Batch) error {
			if f.calls.Load() == 1 {
				if int(arrived.Add(1)) == len(fakes) {
					close(all)
				}
				select {
				case <-all:
				case <-time.After(10 * time.Second):
					t.Error("the other devices did not start a batch within 10 s")
				}
			}
			return nil
		}
	}
}

// TestIdleDevicesHelp checks that several devices share one file, and that the output does not depend on the number of
// devices.
func TestIdleDevicesHelp(t *testing.T) {
	alone, _, records := bigFile(t, 1)
	alone.run()
	alone.check("big", records)

	b, fakes, _ := bigFile(t, 3)
	barrier(t, fakes...)
	s := b.run()
	if s.Records != int64(len(records)) || s.Files[0].Device != "fake0, fake1, fake2" {
		t.Errorf("%d rows by %s", s.Records, s.Files[0].Device)
	}
	want, got := alone.outputs(), b.outputs()
	for _, name := range outputsOf("big") {
		if name != store.ManifestName && got[name] != want[name] {
			t.Errorf("%s depends on the number of devices", name)
		}
	}
	manifest, err := os.ReadFile(filepath.Join(b.out, store.ManifestName))
	if err != nil || !strings.Contains(string(manifest), `"device":"fake0, fake1, fake2"`) {
		t.Errorf("the manifest does not name the devices: %v\n%s", err, manifest)
	}
}

// TestLostHelper checks that a file that several devices compute together is complete and correct if one of the devices
// is lost, no matter which device's reader has opened the file.
func TestLostHelper(t *testing.T) {
	for range 20 {
		b, fakes, records := bigFile(t, 3)
		barrier(t, fakes...)
		sound := fakes[2].fault
		fakes[2].fault = func(batch kernels.Batch) error {
			if err := sound(batch); err != nil || fakes[2].calls.Load() < 3 {
				return err
			}
			return errBroken
		}
		s := b.run()
		b.check("big", records)
		if len(s.Failed) != 0 || s.Records != int64(len(records)) {
			t.Fatalf("%d rows, failed: %v", s.Records, s.Failed)
		}
		if len(b.seen.lost) > 1 || len(b.seen.lost) == 1 && !errors.Is(b.seen.lost["fake2"], errBroken) {
			t.Fatalf("lost: %v", b.seen.lost)
		}
	}
}

// TestAllHelpersLost checks that three failures of devices in a row end the run, no matter which files the devices were
// computing. At most one file may fail, which happens if two devices failed on the same records.
func TestAllHelpersLost(t *testing.T) {
	b, fakes, _ := bigFile(t, 3)
	b.addFiles(1)
	for _, f := range fakes {
		f.fault = func(kernels.Batch) error { return errBroken }
	}
	s, err := b.job.Run(t.Context())
	if !errors.Is(err, ErrSystemic) || len(s.Files) != 0 || len(s.Failed) > 1 {
		t.Errorf("%d files finished, %d failed: %v", len(s.Files), len(s.Failed), err)
	}
	b.wantNames()
}
