package pool

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"seqembed/kernels"
)

var errBroken = errors.New("the device is on fire")

// failing makes the fake device fail in the batches with the given numbers, counted from 1.
func (f *fake) failing(at ...int64) {
	f.fault = func(kernels.Batch) error {
		if slices.Contains(at, f.calls.Load()) {
			return errBroken
		}
		return nil
	}
}

// addFiles adds n files of one small record each, the largest first. A single device computes the files in this order,
// one batch for each file.
func (b *bench) addFiles(n int) {
	b.Helper()
	for i := range n {
		b.add(fmt.Sprintf("f%d.faa", i), fasta(randomRecords(uint64(i), 60-i)))
	}
}

// failing returns a fake device that fails in every batch, after the given number of seconds.
func failing(seconds int) *fake {
	return &fake{columns: oneMean, fault: func(kernels.Batch) error {
		time.Sleep(time.Duration(seconds) * time.Second)
		return errBroken
	}}
}

// TestThreeDeviceFailuresInARowStopTheRun checks that three device failures in a row end the run even if other devices
// are left.
func TestThreeDeviceFailuresInARowStopTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.job.Devices = nil
		for i := range 5 {
			f := failing(i)
			b.job.Devices = append(b.job.Devices, f.device(fmt.Sprint("fake", i)))
		}
		b.addFiles(9)
		began := time.Now()
		s, err := b.job.Run(t.Context())
		var device *DeviceError
		if !errors.Is(err, ErrSystemic) || !errors.Is(err, errBroken) || strings.Contains(err.Error(), "\n") ||
			!errors.As(err, &device) || device.Device != "fake2" {
			t.Errorf("Run: %v", err)
		}
		if len(s.Files) != 0 || len(s.Failed) > 1 || len(b.seen.lost) != 2 || time.Since(began) > 4*time.Second {
			t.Errorf("%d finished, failed %v, lost %v", len(s.Files), s.Failed, b.seen.lost)
		}
		b.wantNames()
	})
}

// TestDeviceFailuresThatAreNotInARow checks that failures with successes between them only remove devices, and that the
// run goes on while a device is left.
func TestDeviceFailuresThatAreNotInARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		for i := range 4 {
			f := failing(2*i + 1)
			b.job.Devices = append(b.job.Devices, f.device(fmt.Sprint("broken", i)))
		}
		b.fake.fault = func(kernels.Batch) error { time.Sleep(time.Second); return nil }
		b.addFiles(20)
		if s := b.run(); len(s.Files) != 20 || len(b.seen.lost) != 4 {
			t.Errorf("%d finished, failed %v, lost %v", len(s.Files), s.Failed, b.seen.lost)
		}
	})
}

// TestRecordOnWhichDevicesFail checks a record on which two devices fail: its file must fail, and the other devices
// must continue.
func TestRecordOnWhichDevicesFail(t *testing.T) {
	b := newBench(t)
	b.addFiles(6)
	bad := b.add("bad.faa", fasta(randomRecords(9, 5, 58))+">poison\nWWWW\n")
	b.job.Devices = nil
	for i := range 4 {
		f := &fake{columns: oneMean}
		f.fault = func(batch kernels.Batch) error {
			if holds(batch, b.tokens("WWWW")) {
				return errBroken
			}
			return nil
		}
		b.job.Devices = append(b.job.Devices, f.device(fmt.Sprint("fake", i)))
	}
	s := b.run()
	if len(s.Files) != 6 || len(s.Failed) != 1 || len(b.seen.lost) != 2 {
		t.Fatalf("%d finished, failed %v, lost %v", len(s.Files), s.Failed, b.seen.lost)
	}
	f := s.Failed[0]
	if f.Path != bad || f.Type != "device" || !errors.Is(f.Err, errBroken) || !strings.Contains(f.Err.Error(), "two devices") {
		t.Errorf("failed: %+v", f)
	}
}

// TestBadInputNeverCounts checks that a bad input file is not counted as a device failure, and does not set the number
// of failures in a row to 0.
func TestBadInputNeverCounts(t *testing.T) {
	b := newBench(t)
	for i := range 7 {
		b.add(fmt.Sprintf("bad%d.faa", i), fmt.Sprintf(">a\n%s\n>b\nM!V\n", strings.Repeat("M", 80-i)))
	}
	b.addFiles(1)
	if s := b.run(); len(s.Files) != 1 || len(s.Failed) != 7 {
		t.Errorf("%d finished, %d failed", len(s.Files), len(s.Failed))
	}

	// The run must end after three failures of devices, although bad files come between the failures.
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.job.Devices = nil
		for i := range 4 {
			f := failing(i)
			d := f.device(fmt.Sprint("fake", i))
			d.Open = func() (Embedder, error) { time.Sleep(time.Duration(i) * time.Second); return f, nil }
			b.job.Devices = append(b.job.Devices, d)
		}
		b.addFiles(5)
		for i := range 5 {
			// In descending order of size, the bad files come between the first and the second good file.
			b.add(fmt.Sprintf("bad%d.faa", i), fmt.Sprintf(">a!b\n%s\n>b\nM!V\n", strings.Repeat("M", 54)))
		}
		s, err := b.job.Run(t.Context())
		if !errors.Is(err, ErrSystemic) || len(s.Failed) < 5 {
			t.Errorf("failed %v: %v", s.Failed, err)
		}
	})
}

// TestLostDevice checks that the work of a lost device goes to the other device.
func TestLostDevice(t *testing.T) {
	b := newBench(t)
	broken, failed := &fake{columns: oneMean}, make(chan struct{})
	broken.fault = func(kernels.Batch) error { close(failed); return errBroken }
	b.fake.fault = func(kernels.Batch) error { <-failed; return nil } // waits until the broken device has a batch, too
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

// TestLastDeviceEndsTheRun checks a run whose last device fails: finished files are kept, no file counts as failed, and
// a second run computes the rest.
func TestLastDeviceEndsTheRun(t *testing.T) {
	b := newBench(t)
	b.fake.failing(2)
	b.addFiles(4)
	s, err := b.job.Run(t.Context())
	const says = "no device is left for 3 files: device fake0: "
	if !errors.Is(err, errBroken) || !strings.HasPrefix(err.Error(), says) || !strings.Contains(err.Error(), "f1.faa") {
		t.Errorf("Run: %v", err)
	}
	if len(s.Files) != 1 || len(s.Failed) != 0 || b.fake.calls.Load() != 2 || b.fake.closed.Load() != 1 || len(b.seen.lost) != 0 {
		t.Errorf("%d finished, failed %v, %d batches", len(s.Files), s.Failed, b.fake.calls.Load())
	}
	b.wantNames(outputsOf("f0")...)
	if s := b.again().run(); len(s.Files) != 3 || len(s.Resumed) != 1 {
		t.Errorf("second run: %+v", s)
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

// TestModelThatDevicesDoNotCompute checks that a model that the devices do not compute ends the run with
// kernels.ErrUnsupported. No device may count as lost, and no file as failed.
func TestModelThatDevicesDoNotCompute(t *testing.T) {
	b := newBench(t)
	refusing := func(name string) Device {
		return Device{Name: name, Open: func() (Embedder, error) {
			return nil, fmt.Errorf("heads of 40 columns: %w", kernels.ErrUnsupported)
		}}
	}
	b.job.Devices = []Device{refusing("gpu0"), refusing("gpu1")}
	b.addFiles(4)
	s, err := b.job.Run(t.Context())
	var device *DeviceError
	if !errors.Is(err, kernels.ErrUnsupported) || errors.As(err, &device) || errors.Is(err, ErrInterrupted) ||
		!strings.Contains(err.Error(), " does not compute this model (heads of 40 columns: ") {
		t.Errorf("Run: %v", err)
	}
	if len(s.Files)+len(s.Failed)+len(b.seen.lost)+len(b.seen.ready) != 0 {
		t.Errorf("%d finished, failed %v, lost %v", len(s.Files), s.Failed, b.seen.lost)
	}
	b.wantNames()
}

// planStdin replaces standard input by a pipe with the given content, and adds standard input to the files of the job.
func (b *bench) planStdin(content string) {
	b.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		// The write fails if the reader stops early. The test then fails, because records are missing.
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
