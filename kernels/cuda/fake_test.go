package cuda

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"testing"
	"unsafe"

	"seqembed/kernels"
	"seqembed/kernels/cuda/driver"
	"seqembed/kernels/cuda/gpu"
)

// fakeGPU is a driver and a device in plain Go. Its streams are real queues. The work on a stream runs when the host
// waits for it and, if eagerness is set, also at random moments. It never runs before an event for which it must wait.
// As on a real device, a launch reads its parameters at once but reads memory only when the kernel runs. So if an event
// is missing, or pinned memory is reused too early, the results can change.
type fakeGPU struct {
	t  *testing.T
	mu sync.Mutex

	version      int32 // CUDA version
	names        []string
	major, minor int32
	free, total  uint64
	kernels      map[string]kernelSpec
	fails        map[string]driver.Result // code that a call returns instead of doing its work, by the call's name
	jitLog       string
	eagerness    *rand.Rand // nil: work runs only when it is waited for
	idle         bool       // launches are checked and recorded, but do nothing

	calls     []string
	memory    []fakeMemory // sorted by address
	next      uint64
	hosts     map[uintptr][]uint64
	objects   driver.Handle
	modules   map[driver.Handle]bool
	functions map[driver.Handle]string
	allowed   map[driver.Handle]int32 // bytes of dynamic shared memory that a function may use
	streams   map[driver.Handle]*fakeQueue
	events    map[driver.Handle]fakeMark
	timing    map[driver.Handle]bool // events that record the time
	launched  []string
	retained  int
}

type fakeMemory struct {
	at    uint64
	bytes []byte
}

type fakeQueue struct {
	work []func()
	done int
}

type fakeMark struct {
	queue *fakeQueue
	until int
}

func newFake(t *testing.T) *fakeGPU {
	return &fakeGPU{
		t: t, version: 12040, names: []string{"Fake H200"}, major: 9, free: 100 << 30, total: 140 << 30,
		kernels: kernelSpecs(), fails: map[string]driver.Result{}, next: 0x7f00_0000_0000,
		hosts: map[uintptr][]uint64{}, modules: map[driver.Handle]bool{}, functions: map[driver.Handle]string{}, allowed: map[driver.Handle]int32{},
		streams: map[driver.Handle]*fakeQueue{}, events: map[driver.Handle]fakeMark{}, timing: map[driver.Handle]bool{},
	}
}

// images returns one module that contains every kernel that the variable contracts lists.
func (f *fakeGPU) images() []gpu.Image {
	i := gpu.Image{Name: "all.ptx", ISA: "7.0", Text: func() ([]byte, error) { return []byte(".version 7.0\x00"), nil }}
	for name := range f.kernels {
		i.Kernels = append(i.Kernels, name)
	}
	return []gpu.Image{i}
}

// bytes returns n bytes of device memory. The test fails if they do not lie inside one allocation.
func (f *fakeGPU) bytes(at uint64, n int) []byte {
	for _, m := range f.memory {
		if at >= m.at && at+uint64(n) <= m.at+uint64(len(m.bytes)) {
			return m.bytes[at-m.at:][:n]
		}
	}
	f.t.Errorf("%d bytes at %#x are in no allocation", n, at)
	return make([]byte, n)
}

// host returns n bytes of pinned memory. The test fails if the memory is not pinned, because the driver must not use
// other host memory after a call has returned.
func (f *fakeGPU) host(at uintptr, n int) []byte {
	for start, words := range f.hosts {
		if at >= start && at+uintptr(n) <= start+uintptr(8*len(words)) {
			all := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), 8*len(words))
			return all[at-start:][:n]
		}
	}
	f.t.Errorf("%d bytes at %#x are not pinned", n, at)
	return make([]byte, n)
}

func (f *fakeGPU) enqueue(stream driver.Handle, work func()) {
	q := f.streams[stream]
	if q == nil {
		f.t.Errorf("work for a stream %d that does not exist", stream)
		return
	}
	q.work = append(q.work, work)
	if f.eagerness != nil {
		for _, q := range f.streams {
			if n := len(q.work) - q.done; n > 0 {
				f.run(fakeMark{q, q.done + f.eagerness.IntN(n+1)})
			}
		}
	}
}

func (f *fakeGPU) run(m fakeMark) {
	for m.queue.done < m.until {
		m.queue.done++ // counted first, because the work may itself call run for this queue
		m.queue.work[m.queue.done-1]()
	}
}

func (f *fakeGPU) object() driver.Handle {
	f.objects++
	return f.objects
}

// driver returns the functions that the package calls. Each call is recorded. If f.fails has a code for the name of a
// call, the call does nothing and returns that code.
func (f *fakeGPU) driver() *driver.CUDA {
	call := func(name string, work func() driver.Result) driver.Result {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.calls = append(f.calls, name)
		if r, ok := f.fails[name]; ok {
			return r
		}
		return work()
	}
	do := func(name string, work func()) driver.Result {
		return call(name, func() driver.Result { work(); return 0 })
	}
	return &driver.CUDA{
		Init:             func(uint32) driver.Result { return do("cuInit", func() {}) },
		DriverGetVersion: func(v *int32) driver.Result { return do("cuDriverGetVersion", func() { *v = f.version }) },
		DeviceGetCount:   func(n *int32) driver.Result { return do("cuDeviceGetCount", func() { *n = int32(len(f.names)) }) },
		DeviceGet:        func(d *int32, i int32) driver.Result { return do("cuDeviceGet", func() { *d = i }) },
		DeviceGetName: func(p *byte, n, d int32) driver.Result {
			return do("cuDeviceGetName", func() { copy(unsafe.Slice(p, n), f.names[d]) })
		},
		DeviceGetAttribute: func(v *int32, a, _ int32) driver.Result {
			return do("cuDeviceGetAttribute", func() { *v = map[int32]int32{75: f.major, 76: f.minor}[a] })
		},
		DeviceTotalMem:          func(n *uint64, _ int32) driver.Result { return do("cuDeviceTotalMem", func() { *n = f.total }) },
		DevicePrimaryCtxRetain:  func(c *driver.Handle, _ int32) driver.Result { return do("retain", func() { *c = 77; f.retained++ }) },
		DevicePrimaryCtxRelease: func(int32) driver.Result { return do("release", func() { f.retained-- }) },
		CtxSetCurrent:           func(driver.Handle) driver.Result { return do("cuCtxSetCurrent", func() {}) },
		MemGetInfo: func(free, total *uint64) driver.Result {
			return do("cuMemGetInfo", func() { *free, *total = f.free, f.total })
		},
		MemAlloc: func(p *driver.Pointer, n uint64) driver.Result {
			return call("cuMemAlloc", func() driver.Result {
				if n > f.free {
					return driver.OutOfMemory
				}
				f.free -= n
				m := fakeMemory{f.next, make([]byte, n)}
				for i := range m.bytes[:n%workspaceBytes] { // a workspace is not filled, because no kernel reads it
					m.bytes[i] = 0xff // bytes of 0xff are a NaN in every type
				}
				f.next += (n+255)&^255 + 4096
				f.memory = append(f.memory, m)
				*p = driver.Pointer(m.at)
				return 0
			})
		},
		MemFree: func(p driver.Pointer) driver.Result {
			return do("cuMemFree", func() {
				for i, m := range f.memory {
					if m.at == uint64(p) {
						f.free += uint64(len(m.bytes))
						f.memory = append(f.memory[:i], f.memory[i+1:]...)
						return
					}
				}
				f.t.Errorf("cuMemFree of %#x, which is not allocated", p)
			})
		},
		MemAllocHost: func(p *unsafe.Pointer, n uint64) driver.Result {
			return do("cuMemAllocHost", func() {
				words := make([]uint64, (n+7)/8)
				*p = unsafe.Pointer(&words[0])
				f.hosts[uintptr(*p)] = words
			})
		},
		MemFreeHost: func(p unsafe.Pointer) driver.Result {
			return do("cuMemFreeHost", func() {
				if f.hosts[uintptr(p)] == nil {
					f.t.Errorf("cuMemFreeHost of memory that is not pinned")
				}
				delete(f.hosts, uintptr(p))
			})
		},
		MemcpyHtoDAsync: func(dst driver.Pointer, src unsafe.Pointer, n uint64, s driver.Handle) driver.Result {
			return do("upload", func() {
				from := f.host(uintptr(src), int(n))
				f.enqueue(s, func() { copy(f.bytes(uint64(dst), int(n)), from) })
			})
		},
		MemcpyDtoHAsync: func(dst unsafe.Pointer, src driver.Pointer, n uint64, s driver.Handle) driver.Result {
			return do("download", func() {
				to := f.host(uintptr(dst), int(n))
				f.enqueue(s, func() { copy(to, f.bytes(uint64(src), int(n))) })
			})
		},
		ModuleLoadDataEx: func(m *driver.Handle, text *byte, n uint32, keys *int32, values *uintptr) driver.Result {
			f.mu.Lock()
			if f.jitLog != "" && n == 2 && *keys == driver.JITErrorLog {
				copy(f.host(*values, len(f.jitLog)+1), f.jitLog)
			}
			f.mu.Unlock()
			return do("cuModuleLoadDataEx", func() { *m = f.object(); f.modules[*m] = true })
		},
		ModuleUnload: func(m driver.Handle) driver.Result { return do("cuModuleUnload", func() { delete(f.modules, m) }) },
		ModuleGetFunction: func(fn *driver.Handle, m driver.Handle, name *byte) driver.Result {
			return do("cuModuleGetFunction", func() {
				var text []byte
				for p := unsafe.Pointer(name); *(*byte)(p) != 0; p = unsafe.Add(p, 1) {
					text = append(text, *(*byte)(p))
				}
				*fn = f.object()
				f.functions[*fn] = string(text)
			})
		},
		FuncSetAttribute: func(fn driver.Handle, a, v int32) driver.Result {
			return do("cuFuncSetAttribute", func() {
				if a == driver.FunctionMaxShared {
					f.allowed[fn] = v
				}
			})
		},
		LaunchKernel: func(fn driver.Handle, grid, block [3]uint32, shared uint32, s driver.Handle, params unsafe.Pointer) driver.Result {
			return do("launch", func() { f.launch(fn, grid, block, shared, s, uintptr(params)) })
		},
		StreamCreate: func(s *driver.Handle, _ uint32) driver.Result {
			return do("cuStreamCreate", func() { *s = f.object(); f.streams[*s] = &fakeQueue{} })
		},
		StreamDestroy: func(s driver.Handle) driver.Result { return do("cuStreamDestroy", func() { delete(f.streams, s) }) },
		StreamSynchronize: func(s driver.Handle) driver.Result {
			return do("cuStreamSynchronize", func() { f.run(fakeMark{f.streams[s], len(f.streams[s].work)}) })
		},
		StreamWaitEvent: func(s, e driver.Handle, _ uint32) driver.Result {
			return do("wait", func() {
				if m := f.events[e]; m.queue != nil {
					f.enqueue(s, func() { f.run(m) })
				}
			})
		},
		EventCreate: func(e *driver.Handle, flags uint32) driver.Result {
			return do("cuEventCreate", func() {
				*e = f.object()
				f.events[*e], f.timing[*e] = fakeMark{}, flags&driver.EventDisableTiming == 0
			})
		},
		// Each work item on a stream takes a millisecond.
		EventElapsedTime: func(ms *float32, start, end driver.Handle) driver.Result {
			return do("cuEventElapsedTime", func() {
				from, to := f.events[start], f.events[end]
				if !f.timing[start] || !f.timing[end] || from.queue == nil || from.queue != to.queue || to.queue.done < to.until {
					f.t.Errorf("the time between events %d and %d is not known", start, end)
				}
				*ms = float32(to.until - from.until)
			})
		},
		EventDestroy: func(e driver.Handle) driver.Result { return do("cuEventDestroy", func() { delete(f.events, e) }) },
		EventRecord: func(e, s driver.Handle) driver.Result {
			return do("record", func() { f.events[e] = fakeMark{f.streams[s], len(f.streams[s].work)} })
		},
		EventSynchronize: func(e driver.Handle) driver.Result {
			return do("cuEventSynchronize", func() {
				if m := f.events[e]; m.queue != nil {
					f.run(m)
				}
			})
		},
	}
}

// launch checks the geometry and the parameters of a launch against the variable contracts. It then enqueues the
// kernel, unless idle is set.
func (f *fakeGPU) launch(fn driver.Handle, grid, block [3]uint32, shared uint32, s driver.Handle, params uintptr) {
	name := f.functions[fn]
	spec, ok := f.kernels[name]
	if !ok {
		f.t.Errorf("a launch of %q, which the table does not have", name)
		return
	}
	f.launched = append(f.launched, name)
	if int(block[0]) != spec.block || block[1] != 1 || block[2] != 1 {
		f.t.Errorf("%s is launched with blocks of %v, and the table says %d", name, block, spec.block)
	}
	if grid[0] == 0 || grid[1] == 0 || grid[1] > 65535 || grid[2] != 1 {
		f.t.Errorf("%s is launched on a grid of %v", name, grid)
	}
	if shared > 48<<10 && int32(shared) > f.allowed[fn] {
		f.t.Errorf("%s is launched with %d bytes of shared memory without leave", name, shared)
	}
	k := &fakeLaunch{gpu: f, name: name, spec: spec, values: map[string]uint64{}, x: int(grid[0]), y: int(grid[1]), shared: int(shared)}
	pointers := f.host(params, 8*spec.params)
	for i, p := range kernelParameters()[name] {
		at := uintptr(binary.LittleEndian.Uint64(pointers[8*i:]))
		value := binary.LittleEndian.Uint64(f.host(at, 8))
		if p.pointer {
			if value != 0 {
				f.bytes(value, 1)
			}
		} else if value>>32 != 0 {
			f.t.Errorf("%s: %s is given a pointer", name, p.name)
		}
		k.values[p.name] = value
	}
	if !f.idle {
		f.enqueue(s, k.run)
	}
}

// checkFreed fails the test if any resource of the fake has not been freed.
func (f *fakeGPU) checkFreed() {
	f.t.Helper()
	if len(f.memory) > 0 || len(f.hosts) > 0 || len(f.streams) > 0 || len(f.events) > 0 || len(f.modules) > 0 || f.retained != 0 {
		f.t.Errorf("left behind: %d allocations, %d pinned, %d streams, %d events, %d modules, context retained %d times",
			len(f.memory), len(f.hosts), len(f.streams), len(f.events), len(f.modules), f.retained)
	}
}

func noCublas(int) (*driver.CublasLt, []Attempt, error) { return nil, nil, errNoCublas }

func openFake(t *testing.T, f *fakeGPU, dtype kernels.DType, find findCublas) *Backend {
	t.Helper()
	b, err := open(f.driver(), 0, Options{DType: dtype}, f.images(), find)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
