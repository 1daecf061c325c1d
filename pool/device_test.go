package pool

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"seqembed/kernels"
)

var errBroken = errors.New("the device is on fire")

// failing is a fault that the device has at the given calls, counted from 1.
func (f *fake) failing(at ...int64) {
	f.fault = func(kernels.Batch) error {
		if slices.Contains(at, f.calls.Load()) {
			return errBroken
		}
		return nil
	}
}

// addFiles adds files of one small record each, the largest first, so that
// one device takes them in this order, with one batch each.
func (b *bench) addFiles(n int) {
	b.Helper()
	for i := range n {
		b.add(fmt.Sprintf("f%d.faa", i), fasta(randomRecords(uint64(i), 60-i)))
	}
}

func TestThreeDeviceFailuresInARowStopTheRun(t *testing.T) {
	b := newBench(t)
	b.fake.failing(2, 3, 4)
	b.addFiles(6)
	s, err := b.job.Run(t.Context())
	if !errors.Is(err, ErrSystemic) || !errors.Is(err, errBroken) || strings.Contains(err.Error(), "\n") {
		t.Errorf("Run: %v", err)
	}
	if len(s.Files) != 1 || len(s.Failed) != 3 || b.fake.calls.Load() != 4 {
		t.Errorf("%d finished, %d failed, %d batches; want 1, 3, 4", len(s.Files), len(s.Failed), b.fake.calls.Load())
	}
	for _, f := range s.Failed {
		var device *DeviceError
		if f.Type != "device" || !errors.As(f.Err, &device) || device.Device != "fake0" {
			t.Errorf("failed as %s: %v", f.Type, f.Err)
		}
	}
	b.wantNames(outputsOf("f0")...)
	if b.fake.closed.Load() != 1 {
		t.Error("the device was not closed")
	}
}

// TestDeviceFailuresThatAreNotInARow fail their files and stop nothing.
func TestDeviceFailuresThatAreNotInARow(t *testing.T) {
	b := newBench(t)
	b.fake.failing(1, 2, 4, 5, 7, 8)
	b.addFiles(9)
	if s := b.run(); len(s.Files) != 3 || len(s.Failed) != 6 {
		t.Errorf("%d finished, %d failed", len(s.Files), len(s.Failed))
	}
	b.wantNames(outputsOf("f2", "f5", "f8")...)
}

// TestBadInputNeverCounts: files that are bad are no failures of the device,
// however many, and do not end a row of them either.
func TestBadInputNeverCounts(t *testing.T) {
	b := newBench(t)
	for i := range 7 {
		b.add(fmt.Sprintf("bad%d.faa", i), fmt.Sprintf(">a\n%s\n>b\nM!V\n", strings.Repeat("M", 80-i)))
	}
	b.addFiles(1)
	if s := b.run(); len(s.Files) != 1 || len(s.Failed) != 7 {
		t.Errorf("%d finished, %d failed", len(s.Files), len(s.Failed))
	}

	b = newBench(t)
	b.fake.fault = func(kernels.Batch) error { return errBroken }
	b.addFiles(3)
	for i := range 2 {
		// By size these come between the first and the second file.
		b.add(fmt.Sprintf("bad%d.faa", i), fmt.Sprintf(">a!b\n%s\n>b\nM!V\n", strings.Repeat("M", 54)))
	}
	s, err := b.job.Run(t.Context())
	if !errors.Is(err, ErrSystemic) || len(s.Failed) != 5 {
		t.Errorf("%d failed: %v", len(s.Failed), err)
	}
}

// TestLostDevice: what a broken device had goes to the other one.
func TestLostDevice(t *testing.T) {
	b := newBench(t)
	broken, failed := &fake{layers: 1}, make(chan struct{})
	broken.fault = func(kernels.Batch) error { close(failed); return errBroken }
	b.fake.fault = func(kernels.Batch) error { <-failed; return nil } // so that both get a file
	b.job.Devices = []Device{broken.device("broken"), b.fake.device("sound")}
	var inputs [][]entryOf
	for i := range 5 {
		inputs = append(inputs, randomRecords(uint64(i), upTo(30)...))
		b.add(fmt.Sprintf("f%d.faa", i), fasta(inputs[i]))
	}
	s := b.run()
	if len(s.Files) != 5 || len(s.Failed) != 0 || broken.calls.Load() != 1 {
		t.Errorf("%d finished, %d failed, %d batches on the broken device", len(s.Files), len(s.Failed), broken.calls.Load())
	}
	for i := range inputs {
		b.check(fmt.Sprintf("f%d", i), inputs[i])
	}
	if len(b.seen.lost) != 1 || !errors.Is(b.seen.lost["broken"], errBroken) {
		t.Errorf("lost: %v", b.seen.lost)
	}
}

// TestLastDeviceGoesOn: with nobody left to take a file over, it fails, and
// the next one is tried.
func TestLastDeviceGoesOn(t *testing.T) {
	b := newBench(t)
	broken, lost := &fake{layers: 1}, make(chan struct{})
	broken.fault = func(kernels.Batch) error { return errBroken }
	b.seen.onLost = func() { close(lost) }
	b.fake.fault = func(kernels.Batch) error {
		<-lost
		if b.fake.calls.Load() == 1 {
			return errBroken
		}
		return nil
	}
	b.job.Devices = []Device{broken.device("broken"), b.fake.device("shaky")}
	b.addFiles(4)
	if s := b.run(); len(s.Files) != 3 || len(s.Failed) != 1 || s.Failed[0].Type != "device" {
		t.Errorf("%d finished, failed %v", len(s.Files), s.Failed)
	}
}

func TestDeviceThatCannotBeOpened(t *testing.T) {
	closed := Device{Name: "closed", Open: func() (Embedder, error) { return nil, errBroken }}

	b := newBench(t)
	b.job.Devices = []Device{closed, b.fake.device("fake0")}
	b.addFiles(4)
	if s := b.run(); len(s.Files) != 4 || len(s.Failed) != 0 {
		t.Errorf("%d finished, %d failed", len(s.Files), len(s.Failed))
	}

	for _, devices := range [][]Device{{closed}, {closed, closed}} {
		b := newBench(t)
		b.job.Devices = devices
		b.addFiles(4)
		s, err := b.job.Run(t.Context())
		var device *DeviceError
		if !errors.As(err, &device) || !errors.Is(err, errBroken) || !strings.Contains(err.Error(), "4 files") || strings.Contains(err.Error(), "\n") {
			t.Errorf("Run: %v", err)
		}
		if len(s.Files)+len(s.Failed) != 0 || len(b.seen.lost) > len(devices)-1 {
			t.Errorf("%d finished, %d failed, lost %v", len(s.Files), len(s.Failed), b.seen.lost)
		}
		b.wantNames()
	}
}

// TestPipeIsNotTakenOver: what was read from a pipe for a backend that is lost is gone, so
// that file fails, and says so, instead of losing its first records.
func TestPipeIsNotTakenOver(t *testing.T) {
	b := newBench(t)
	b.fake.budget = 20
	other, failed := &fake{layers: 1}, make(chan struct{})
	b.fake.fault = func(kernels.Batch) error {
		if b.fake.calls.Load() == 3 {
			close(failed)
			return errBroken
		}
		return nil
	}
	other.fault = func(kernels.Batch) error { <-failed; return nil }
	input := fasta(randomRecords(1, upTo(60)...))
	b.planStdin(input)
	b.job.Devices = []Device{b.fake.device("broken"), {Name: "late", Open: func() (Embedder, error) { <-failed; return other, nil }}}
	s := b.run()
	if len(s.Failed) != 1 || s.Failed[0].Type != "device" || s.Failed[0].Path != "-" || other.calls.Load() != 0 {
		t.Errorf("failed %v; the other device got %d batches", s.Failed, other.calls.Load())
	}
	b.wantNames()
}

// planStdin plans standard input, with that content.
func (b *bench) planStdin(content string) {
	b.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		// A reader that stops early makes this fail, which is its affair.
		_, _ = write.WriteString(content)
		write.Close()
	}()
	stdin := os.Stdin
	os.Stdin = read
	b.Cleanup(func() {
		os.Stdin = stdin
		read.Close()
	})
	b.plan("-")
}

func TestStandardInput(t *testing.T) {
	b := newBench(t)
	records := randomRecords(1, upTo(100)...)
	b.planStdin(fasta(records))
	b.run()
	b.check("stdin", records)
}
