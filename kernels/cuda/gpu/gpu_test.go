package gpu

import (
	"errors"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"seqembed/kernels/cuda/driver"
)

// fake is a driver that records its calls. A test can make one of the calls fail. A test also determines when events
// happen.
type fake struct {
	mu       sync.Mutex
	calls    []string
	fails    string
	launched [8]uint64 // grid, block, shared memory, then parameters
	happened chan bool // every wait for an event receives one element
	hosts    [][]uint64
	text     string // first byte of the PTX of the last module
}

func (f *fake) call(name string) driver.Result {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, name)
	if f.fails == name {
		return 700
	}
	return 0
}

func (f *fake) driver() *driver.CUDA {
	return &driver.CUDA{
		Init:                    func(uint32) driver.Result { return f.call("init") },
		DriverGetVersion:        func(v *int32) driver.Result { *v = 12040; return 0 },
		DeviceGetCount:          func(n *int32) driver.Result { *n = 2; return 0 },
		DeviceGet:               func(d *int32, i int32) driver.Result { *d = i + 40; return 0 },
		DeviceGetName:           func(p *byte, n, _ int32) driver.Result { copy(unsafe.Slice(p, n), "Fake"); return 0 },
		DeviceGetAttribute:      func(v *int32, a, _ int32) driver.Result { *v = a % 66; return 0 },
		DeviceTotalMem:          func(n *uint64, _ int32) driver.Result { *n = 1 << 30; return 0 },
		DevicePrimaryCtxRetain:  func(c *driver.Handle, d int32) driver.Result { *c = driver.Handle(d); return f.call("retain") },
		DevicePrimaryCtxRelease: func(int32) driver.Result { return f.call("release") },
		CtxSetCurrent: func(c driver.Handle) driver.Result {
			if c == 0 {
				return f.call("out")
			}
			return f.call("in")
		},
		MemGetInfo: func(free, total *uint64) driver.Result { *free, *total = 7, 9; return f.call("info") },
		MemAllocHost: func(p *unsafe.Pointer, n uint64) driver.Result {
			words := make([]uint64, n/8+1)
			f.hosts, *p = append(f.hosts, words), unsafe.Pointer(&words[0])
			return f.call("pin")
		},
		MemFreeHost: func(unsafe.Pointer) driver.Result { return f.call("unpin") },
		ModuleLoadDataEx: func(m *driver.Handle, text *byte, _ uint32, _ *int32, _ *uintptr) driver.Result {
			*m, f.text = 1, string(unsafe.Slice(text, 1))
			return f.call("load")
		},
		ModuleUnload:      func(driver.Handle) driver.Result { return f.call("unload") },
		ModuleGetFunction: func(fn *driver.Handle, _ driver.Handle, _ *byte) driver.Result { *fn = 5; return f.call("function") },
		FuncSetAttribute:  func(driver.Handle, int32, int32) driver.Result { return f.call("allow") },
		LaunchKernel: func(_ driver.Handle, grid, block [3]uint32, shared uint32, _ driver.Handle, params unsafe.Pointer) driver.Result {
			f.launched = [8]uint64{uint64(grid[0]), uint64(grid[1]), uint64(block[0]), uint64(shared)}
			for i, p := range unsafe.Slice((**uint64)(params), 3) {
				f.launched[4+i] = *p
			}
			return f.call("launch")
		},
		EventSynchronize: func(driver.Handle) driver.Result { <-f.happened; return f.call("wait") },
	}
}

func images(kernels ...string) []Image {
	return []Image{{Name: "a.ptx", ISA: "7.0", Kernels: kernels, Text: func() ([]byte, error) { return []byte("P\x00"), nil }}}
}

// opened opens the second device and then clears the recorded calls.
func opened(t *testing.T, f *fake) *Device {
	t.Helper()
	cuda := f.driver()
	version, count, err := Count(cuda)
	if err != nil || version != 12040 || count != 2 {
		t.Fatalf("version %d, %d devices: %v", version, count, err)
	}
	info, err := Describe(cuda, 1, version)
	if err != nil || info != (Info{Ordinal: 1, Name: "Fake", Major: 9, Minor: 10, TotalMemory: 1 << 30, PCI: "00000032:21:22.0", Driver: 12040, id: 41}) {
		t.Fatalf("%+v: %v", info, err)
	}
	d, err := Open(cuda, info, images("k", "l"))
	if err != nil {
		t.Fatal(err)
	}
	f.calls = nil
	return d
}

// TestContext checks that the context is current only inside Do and Wait, and that only one goroutine at a time is in
// Do.
func TestContext(t *testing.T) {
	f := &fake{happened: make(chan bool)}
	d := opened(t, f)
	if free, err := d.Memory(); free != 7 || err != nil {
		t.Errorf("%d bytes are free: %v", free, err)
	}
	if want := []string{"in", "info", "out"}; !slices.Equal(f.calls, want) {
		t.Errorf("the calls are %v, and not %v", f.calls, want)
	}
	waited := make(chan error)
	go func() { waited <- d.Wait(1) }() // this wait must not delay Do
	var inside, most atomic.Int32
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 50 {
				_ = d.Do(func(*Context) {
					if n := inside.Add(1); n > most.Load() {
						most.Store(n)
					}
					runtime.Gosched()
					inside.Add(-1)
				})
			}
		})
	}
	group.Wait()
	if most.Load() != 1 {
		t.Errorf("%d goroutines are in Do", most.Load())
	}
	f.happened <- true
	if err := <-waited; err != nil {
		t.Error(err)
	}
	failure := errors.New("of the work")
	if err := d.Do(func(c *Context) { c.Fail(nil); c.Fail(failure); c.Fail(io.EOF) }); err != failure {
		t.Errorf("Do gives %v", err)
	}
	d.Close()
	d.Close()
	if err := errors.Join(d.Do(func(*Context) { t.Error("work runs after Close") }), d.Wait(1)); !errors.Is(err, ErrClosed) {
		t.Errorf("a closed device says %v", err)
	}
	current := 0
	for _, call := range f.calls {
		current += map[string]int{"in": 1, "out": -1}[call]
	}
	if !strings.HasSuffix(strings.Join(f.calls, " "), " in unpin unpin out release") || current != 0 {
		t.Errorf("the calls are %s", f.calls)
	}
}

// TestContextThatFails checks that Do and Wait return the error if the context cannot be made current, and leave
// nothing locked.
func TestContextThatFails(t *testing.T) {
	f := &fake{}
	d := opened(t, f)
	f.fails = "in"
	var failed *driver.Error
	for range 2 {
		if err := d.Do(func(*Context) { t.Error("work runs") }); !errors.As(err, &failed) || failed.Code != 700 {
			t.Errorf("Do gives %v", err)
		}
		if err := d.Wait(1); !errors.As(err, &failed) {
			t.Errorf("Wait gives %v", err)
		}
	}
	d.Close()
	if want := []string{"in", "in", "in", "in", "in", "release"}; !slices.Equal(f.calls, want) {
		t.Errorf("the calls are %v, and not %v", f.calls, want)
	}
}

// TestLaunch checks that the driver receives the grid and the parameters of a launch, and that a module is loaded once,
// when the first of its kernels is used.
func TestLaunch(t *testing.T) {
	f := &fake{}
	d := opened(t, f)
	defer d.Close()
	refused := func(what string, do func(c *Context)) {
		if err := d.Do(do); err == nil {
			t.Errorf("%s is no error", what)
		}
	}
	refused("a kernel that no image has", func(c *Context) { c.Kernel("m", 32, 0) })
	refused("a grid of no blocks", func(c *Context) { c.Launch(3, Kernel{}, 0, 1) })
	f.calls = nil
	err := d.Do(func(c *Context) {
		k := c.Kernel("k", 128, 60<<10)
		for _, name := range []string{"k", "l"} {
			c.Kernel(name, 128, 60<<10)
		}
		c.Launch(3, k, 70000, 2, Ptr(1<<45+3), Int(-7), Float(1.5))
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"in", "load", "function", "allow", "function", "allow", "launch", "out"}
	if !slices.Equal(f.calls, want) || f.text != "P" {
		t.Errorf("the calls are %v, and not %v", f.calls, want)
	}
	if want := [8]uint64{70000, 2, 128, 60 << 10, 1<<45 + 3, 0xfffffff9, 0x3fc00000}; f.launched != want {
		t.Errorf("the launch is %x, and not %x", f.launched, want)
	}
}

// TestFirstFailure checks that after a function of the driver has failed, Do calls only cuCtxSetCurrent to remove the
// context, and that the next Do succeeds.
func TestFirstFailure(t *testing.T) {
	f := &fake{fails: "function"}
	d := opened(t, f)
	defer d.Close()
	var failed *driver.Error
	err := d.Do(func(c *Context) {
		var r Resources
		c.Launch(3, c.Kernel("k", 32, 60<<10), 1, 1)
		c.Record(r.NewEvent(c), r.NewStream(c))
		c.Upload(r.Alloc(c, 8), r.Pin(c, 8), 0, 8, 3)
		r.Synchronize(c)
	})
	if want := []string{"in", "load", "function", "out"}; !slices.Equal(f.calls, want) || !errors.As(err, &failed) {
		t.Errorf("the calls are %v, and the error is %v", f.calls, err)
	}
	if err := d.Do(func(*Context) {}); err != nil {
		t.Errorf("the next Do gives %v", err)
	}
}

// BenchmarkContext compares Do with the alternative: a goroutine that is locked to a thread and receives work from
// others. The fake driver's cuCtxSetCurrent takes almost no time; a real one, which Do calls twice, takes more.
func BenchmarkContext(b *testing.B) {
	cuda := (&fake{}).driver()
	cuda.CtxSetCurrent = func(driver.Handle) driver.Result { return 0 }
	d, err := Open(cuda, Info{}, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	b.Run("Do", func(b *testing.B) {
		for range b.N {
			_ = d.Do(func(*Context) {})
		}
	})
	b.Run("hand-over", func(b *testing.B) {
		queue, done := make(chan func(), 16), make(chan error, 1)
		defer close(queue)
		go func() {
			runtime.LockOSThread()
			for work := range queue {
				work()
			}
		}()
		for range b.N {
			queue <- func() { done <- nil }
			<-done
		}
	})
}
