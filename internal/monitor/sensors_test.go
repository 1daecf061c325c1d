package monitor

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"seqembed/kernels/cuda/driver"
)

// fakeNVML compiles testdata/nvml.c, an imitation of NVIDIA's library for sensors. It returns places in which FindNVML
// finds only this imitation.
func fakeNVML(t *testing.T) driver.Places {
	t.Helper()
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		t.Skip("this system has no CUDA")
	}
	compiler, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no C compiler to build a library to call")
	}
	root := t.TempDir()
	folder := filepath.Join(root, "usr/local/nvidia/lib64")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(folder, "libnvidia-ml.so.1")
	if out, err := exec.Command(compiler, "-shared", "-fPIC", "-w", "-o", path, "testdata/nvml.c").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return driver.Places{Root: root, Getenv: os.Getenv, Open: func(path string) (uintptr, error) {
		if !filepath.IsAbs(path) { // a bare name would load the real library of this machine
			return 0, fs.ErrNotExist
		}
		return driver.OpenLibrary(path)
	}}
}

// TestNVML checks the values that are read from the sensors of two GPUs. The value of a missing sensor must be unknown.
func TestNVML(t *testing.T) {
	find, err := loadNVML(fakeNVML(t))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]Sample{
		"00000000:01:00.0": {91, 1 << 30, 80 << 30, 61, 512.5, 1980},
		"00000000:02:00.0": {92, 2 << 30, 80 << 30, 62, unknown, 1980},
	}
	for pci, w := range want {
		read, err := find(pci)
		if err != nil {
			t.Fatal(err)
		}
		if got := read(); !sameSample(got, w) {
			t.Errorf("%s: %v, want %v", pci, got, w)
		}
	}
	if _, err := find("00000000:03:00.0"); err == nil {
		t.Error("a GPU that does not exist is found")
	}
}

// TestNVMLGone checks a run in which NVML stops working, as after a crash of the driver: the present values of the
// sensors become unknown, and the peaks and means stay.
func TestNVMLGone(t *testing.T) {
	const pci = "00000000:04:00.0"
	places := fakeNVML(t)
	c := newClock()
	c.Plan("m", map[string]int64{"f": 10})
	c.Begin()
	c.DeviceOpening("cuda:0", pci)
	c.DeviceReady("cuda:0")
	samples := make(chan Device)
	stop := watchSensors([]string{pci}, func() (finder, error) { return loadNVML(places) }, time.Millisecond, func(pci string, s Sample) {
		c.Sample(pci, s)
		select {
		case samples <- c.model().Devices[0]:
		case <-t.Context().Done():
		}
	})
	defer stop()
	if d := await(t, samples); d.Temperature != 64 || d.MemoryUsed != 4<<30 || d.Power != 512.5 {
		t.Errorf("before: %+v", d)
	}
	for range 3 {
		d := await(t, samples)
		for name, v := range map[string]Value{"utilization": d.Utilization, "memory": d.MemoryUsed, "temperature": d.Temperature, "power": d.Power, "clock": d.Clock} {
			if v.known() {
				t.Errorf("the %s is %v without NVML", name, v)
			}
		}
		if d.PeakTemperature != 64 || d.PeakMemory != 4<<30 || d.MeanPower != 512.5 {
			t.Errorf("the peaks and means are %+v", d)
		}
	}
}

// sameSample reports whether two samples have equal values, where unknown is equal to unknown.
func sameSample(a, b Sample) bool {
	same := func(x, y Value) bool { return x == y || !x.known() && !y.known() }
	return same(a.Utilization, b.Utilization) && same(a.MemoryUsed, b.MemoryUsed) && same(a.MemoryTotal, b.MemoryTotal) &&
		same(a.Temperature, b.Temperature) && same(a.Power, b.Power) && same(a.Clock, b.Clock)
}

// TestNoNVML checks that a machine without NVML gives no samples and no failure.
func TestNoNVML(t *testing.T) {
	missing := driver.Places{Root: t.TempDir(), Getenv: os.Getenv, Open: func(string) (uintptr, error) { return 0, fs.ErrNotExist }}
	if _, err := loadNVML(missing); err == nil {
		t.Fatal("a library is found")
	}
	tried := make(chan struct{})
	stop := watchSensors([]string{"a"}, func() (finder, error) { defer close(tried); return nil, errors.New("none") }, time.Hour,
		func(string, Sample) { t.Error("a sample without a library") })
	await(t, tried)
	stop()
}

// TestHangingNVML checks that a call of NVML that never returns delays neither another GPU nor the end of the run.
func TestHangingNVML(t *testing.T) {
	hangs := make(chan struct{}) // closed only at the end of the test
	defer close(hangs)
	started := make(chan struct{})
	start := sync.OnceFunc(func() { close(started) })
	find := func(pci string) (func() Sample, error) {
		return func() Sample {
			if pci == "hangs" {
				start()
				<-hangs
			}
			return noSample
		}, nil
	}
	samples := make(chan string)
	stop := watchSensors([]string{"hangs", "answers"}, func() (finder, error) { return find, nil }, time.Millisecond,
		func(pci string, _ Sample) {
			select {
			case samples <- pci:
			case <-hangs:
			}
		})
	await(t, started)
	for range 3 {
		if pci := await(t, samples); pci != "answers" {
			t.Errorf("a sample of %s", pci)
		}
	}
	stop() // must return while a call of NVML hangs
}

// await returns the next value of a channel, or the zero value if the channel is closed. It fails the test after a
// minute.
func await[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(time.Minute):
		t.Fatal("nothing has happened for a minute")
		panic("unreachable")
	}
}
