package pool

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"seqembed/kernels"
)

// hanging is a fake device that hangs from its second batch on until release is closed.
type hanging struct {
	*fake
	inStart   bool // whether it hangs in Start; otherwise it hangs in the function that Start returns
	release   chan struct{}
	abandoned int // number of calls of Device.Abandon
}

func (h *hanging) hang(call int64) {
	if call > 1 {
		<-h.release
	}
}

func (h *hanging) Start(b kernels.Batch) func() ([][]float32, error) {
	finish := h.fake.Start(b)
	call := h.calls.Load()
	if h.inStart {
		h.hang(call)
	}
	return func() ([][]float32, error) {
		h.hang(call)
		return finish()
	}
}

func (h *hanging) device(name string) Device {
	return Device{Name: name, Ahead: 1, Open: func() (Embedder, error) { return h, nil }, Abandon: func() { h.abandoned++ }}
}

// TestDeviceThatHangs checks that a device that makes no progress is lost like one that fails: its work goes to the
// other device. Nothing may use the device any more, and the run must not wait for it.
func TestDeviceThatHangs(t *testing.T) {
	for _, inStart := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b, _, records := bigFile(t, 1)
			h := &hanging{fake: &fake{columns: oneMean, budget: 8}, inStart: inStart, release: make(chan struct{})}
			b.fake.budget = 8
			b.fake.fault = func(kernels.Batch) error { time.Sleep(9 * time.Second); return nil }
			b.job.StallTimeout = 10 * time.Second
			b.job.Devices = []Device{h.device("hangs"), b.fake.device("works")}
			b.run()
			b.check("big", records)
			if err := b.seen.lost["hangs"]; len(b.seen.lost) != 1 || !errors.Is(err, ErrStalled) {
				t.Errorf("lost: %v", b.seen.lost)
			}
			if h.abandoned != 1 || h.closed.Load() != 0 || b.fake.closed.Load() != 1 {
				t.Errorf("the device that hangs was given up %d times and closed %d times", h.abandoned, h.closed.Load())
			}
			calls := h.calls.Load()
			close(h.release)
			synctest.Wait()
			if h.calls.Load() != calls {
				t.Errorf("it was used again")
			}
		})
	}
}

// TestLastDeviceHangs checks that a run ends if its last device makes no progress, and that a second run completes the
// job.
func TestLastDeviceHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _, records := bigFile(t, 1)
		h := &hanging{fake: &fake{columns: oneMean, budget: 8}, release: make(chan struct{})}
		b.job.StallTimeout, b.job.PartRecords = time.Minute, 2
		b.job.Devices = []Device{h.device("hangs")}
		began := time.Now()
		_, err := b.job.Run(t.Context())
		var device *DeviceError
		if took := time.Since(began); !errors.As(err, &device) || device.Device != "hangs" || !strings.Contains(err.Error(), "big.faa: no progress for ") || !errors.Is(err, ErrStalled) ||
			took > b.job.StallTimeout*64 { // the longest record has 6.5 times the budget, and so 42 times the limit
			t.Errorf("after %v: %v", took, err)
		}
		b = b.again()
		b.run()
		b.check("big", records)
		close(h.release)
	})
}

// TestLongRecordsHaveTime checks that no device is given up while it computes a record of about ten times the budget,
// if the time for the record grows with the square of the length.
func TestLongRecordsHaveTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		// The long record has 642 tokens, ten times the budget of 64.
		records := append(randomRecords(1, upTo(30)...), entryOf{"long", strings.Repeat("MKVLAAGW", 80)})
		b.add("a.faa", fasta(records))
		b.job.StallTimeout = 10 * time.Second
		b.fake.fault = func(batch kernels.Batch) error {
			long := max(1, float64(len(batch.IDs))/64)
			time.Sleep(time.Duration(9 * long * long * float64(time.Second)))
			return nil
		}
		b.run()
		b.check("a", records)
	})
}

// TestDevicesThatHangOnARecord checks that a file fails if two devices hang on one of its records, and that a third
// device computes the other files.
func TestDevicesThatHangOnARecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.addFiles(3)
		bad := b.add("bad.faa", fasta(randomRecords(9, 58))+">poison\nWWWW\n")
		b.job.Devices, b.job.StallTimeout = nil, time.Second
		release := make(chan struct{})
		for _, name := range []string{"a", "b", "c"} {
			f := &fake{columns: oneMean}
			f.fault = func(batch kernels.Batch) error {
				if holds(batch, b.tokens("WWWW")) {
					<-release
				}
				return nil
			}
			d := f.device(name)
			d.Abandon = func() {}
			b.job.Devices = append(b.job.Devices, d)
		}
		s := b.run()
		if len(s.Files) != 3 || len(s.Failed) != 1 || s.Failed[0].Path != bad || s.Failed[0].Type != "device" || len(b.seen.lost) != 2 {
			t.Errorf("%d finished, failed %v, lost %v", len(s.Files), s.Failed, b.seen.lost)
		}
		close(release)
		if slices.Contains(b.names(), "bad.fake.npy") {
			t.Error("its output exists")
		}
	})
}
