package cuda

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"unsafe"
)

// fakeGPU is a driver and a device made of Go. Its streams are real queues:
// work on one runs when somebody waits for it or when the seed says so, and
// never before an event that it waits for. A launch reads its parameters when
// it is made and memory when it runs, as on a device, so a missing event or
// pinned memory that is used again too early shows in the results.
type fakeGPU struct {
	t  *testing.T
	mu sync.Mutex

	version      int32 // of CUDA
	names        []string
	major, minor int32
	free, total  uint64
	kernels      map[string]kernelSpec // from src/README.md
	fails        map[string]result     // what a call answers instead of working, by its name
	jitLog       string
	eagerness    *rand.Rand // nil: work runs only when it is waited for

	calls     []string
	memory    []fakeMemory // by address
	next      uint64
	hosts     map[uintptr][]uint64
	objects   handle
	modules   map[handle]bool
	functions map[handle]string
	allowed   map[handle]int32 // dynamic shared memory
	streams   map[handle]*fakeQueue
	events    map[handle]fakeMark
	timing    map[handle]bool // the events that keep the time
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
		kernels: readKernelTable(t), fails: map[string]result{}, next: 0x7f00_0000_0000,
		hosts: map[uintptr][]uint64{}, modules: map[handle]bool{}, functions: map[handle]string{}, allowed: map[handle]int32{},
		streams: map[handle]*fakeQueue{}, events: map[handle]fakeMark{}, timing: map[handle]bool{},
	}
}

// images has every kernel of the table in one module.
func (f *fakeGPU) images() []image {
	i := image{name: "all.ptx", isa: "7.0", text: func() ([]byte, error) { return []byte(".version 7.0\x00"), nil }}
	for name := range f.kernels {
		i.kernels = append(i.kernels, name)
	}
	return []image{i}
}

// bytes is device memory; it has to lie inside one allocation.
func (f *fakeGPU) bytes(at uint64, n int) []byte {
	for _, m := range f.memory {
		if at >= m.at && at+uint64(n) <= m.at+uint64(len(m.bytes)) {
			return m.bytes[at-m.at:][:n]
		}
	}
	f.t.Errorf("%d bytes at %#x are in no allocation", n, at)
	return make([]byte, n)
}

// host is pinned memory; nothing else may be handed to the driver for longer
// than a call.
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

func (f *fakeGPU) enqueue(stream handle, work func()) {
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
		m.queue.done++ // first, so that a task may run others
		m.queue.work[m.queue.done-1]()
	}
}

func (f *fakeGPU) object() handle {
	f.objects++
	return f.objects
}

// driver is the table of functions that the package sees. Each call is
// recorded, and fails when the test has asked for it.
func (f *fakeGPU) driver() *driver {
	call := func(name string, work func() result) result {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.calls = append(f.calls, name)
		if r, ok := f.fails[name]; ok {
			return r
		}
		return work()
	}
	do := func(name string, work func()) result { return call(name, func() result { work(); return 0 }) }
	return &driver{
		cuInit:             func(uint32) result { return do("cuInit", func() {}) },
		cuDriverGetVersion: func(v *int32) result { return do("cuDriverGetVersion", func() { *v = f.version }) },
		cuDeviceGetCount:   func(n *int32) result { return do("cuDeviceGetCount", func() { *n = int32(len(f.names)) }) },
		cuDeviceGet:        func(d *int32, i int32) result { return do("cuDeviceGet", func() { *d = i }) },
		cuDeviceGetName: func(p *byte, n, d int32) result {
			return do("cuDeviceGetName", func() { copy(unsafe.Slice(p, n), f.names[d]) })
		},
		cuDeviceGetAttribute: func(v *int32, a, _ int32) result {
			return do("cuDeviceGetAttribute", func() { *v = map[int32]int32{75: f.major, 76: f.minor}[a] })
		},
		cuDeviceTotalMem:          func(n *uint64, _ int32) result { return do("cuDeviceTotalMem", func() { *n = f.total }) },
		cuDevicePrimaryCtxRetain:  func(c *handle, _ int32) result { return do("retain", func() { *c = 77; f.retained++ }) },
		cuDevicePrimaryCtxRelease: func(int32) result { return do("release", func() { f.retained-- }) },
		cuCtxSetCurrent:           func(handle) result { return do("cuCtxSetCurrent", func() {}) },
		cuMemGetInfo: func(free, total *uint64) result {
			return do("cuMemGetInfo", func() { *free, *total = f.free, f.total })
		},
		cuMemAlloc: func(p *devicePtr, n uint64) result {
			return call("cuMemAlloc", func() result {
				if n > f.free {
					return codeOutOfMemory
				}
				f.free -= n
				m := fakeMemory{f.next, make([]byte, n)}
				for i := range m.bytes[:n%workspaceBytes] { // not the workspace, which nothing reads
					m.bytes[i] = 0xff // a NaN in every type
				}
				f.next += (n+255)&^255 + 4096
				f.memory = append(f.memory, m)
				*p = devicePtr(m.at)
				return 0
			})
		},
		cuMemFree: func(p devicePtr) result {
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
		cuMemAllocHost: func(p *unsafe.Pointer, n uint64) result {
			return do("cuMemAllocHost", func() {
				words := make([]uint64, (n+7)/8)
				*p = unsafe.Pointer(&words[0])
				f.hosts[uintptr(*p)] = words
			})
		},
		cuMemFreeHost: func(p unsafe.Pointer) result {
			return do("cuMemFreeHost", func() {
				if f.hosts[uintptr(p)] == nil {
					f.t.Errorf("cuMemFreeHost of memory that is not pinned")
				}
				delete(f.hosts, uintptr(p))
			})
		},
		cuMemcpyHtoDAsync: func(dst devicePtr, src unsafe.Pointer, n uint64, s handle) result {
			return do("upload", func() {
				from := f.host(uintptr(src), int(n))
				f.enqueue(s, func() { copy(f.bytes(uint64(dst), int(n)), from) })
			})
		},
		cuMemcpyDtoHAsync: func(dst unsafe.Pointer, src devicePtr, n uint64, s handle) result {
			return do("download", func() {
				to := f.host(uintptr(dst), int(n))
				f.enqueue(s, func() { copy(to, f.bytes(uint64(src), int(n))) })
			})
		},
		cuModuleLoadDataEx: func(m *handle, text *byte, n uint32, keys *int32, values *uintptr) result {
			f.mu.Lock()
			if f.jitLog != "" && n == 2 && *keys == jitErrorLog {
				copy(f.host(*values, len(f.jitLog)+1), f.jitLog)
			}
			f.mu.Unlock()
			return do("cuModuleLoadDataEx", func() { *m = f.object(); f.modules[*m] = true })
		},
		cuModuleUnload: func(m handle) result { return do("cuModuleUnload", func() { delete(f.modules, m) }) },
		cuModuleGetFunction: func(fn *handle, m handle, name *byte) result {
			return do("cuModuleGetFunction", func() {
				var text []byte
				for p := unsafe.Pointer(name); *(*byte)(p) != 0; p = unsafe.Add(p, 1) {
					text = append(text, *(*byte)(p))
				}
				*fn = f.object()
				f.functions[*fn] = string(text)
			})
		},
		cuFuncSetAttribute: func(fn handle, a, v int32) result {
			return do("cuFuncSetAttribute", func() {
				if a == functionMaxShared {
					f.allowed[fn] = v
				}
			})
		},
		cuLaunchKernel: func(fn handle, grid, block [3]uint32, shared uint32, s handle, params unsafe.Pointer) result {
			return do("launch", func() { f.launch(fn, grid, block, shared, s, uintptr(params)) })
		},
		cuStreamCreate: func(s *handle, _ uint32) result {
			return do("cuStreamCreate", func() { *s = f.object(); f.streams[*s] = &fakeQueue{} })
		},
		cuStreamDestroy: func(s handle) result { return do("cuStreamDestroy", func() { delete(f.streams, s) }) },
		cuStreamSynchronize: func(s handle) result {
			return do("cuStreamSynchronize", func() { f.run(fakeMark{f.streams[s], len(f.streams[s].work)}) })
		},
		cuStreamWaitEvent: func(s, e handle, _ uint32) result {
			return do("wait", func() {
				if m := f.events[e]; m.queue != nil {
					f.enqueue(s, func() { f.run(m) })
				}
			})
		},
		cuEventCreate: func(e *handle, flags uint32) result {
			return do("cuEventCreate", func() {
				*e = f.object()
				f.events[*e], f.timing[*e] = fakeMark{}, flags&eventDisableTiming == 0
			})
		},
		// Each piece of work on a stream takes a millisecond.
		cuEventElapsedTime: func(ms *float32, start, end handle) result {
			return do("cuEventElapsedTime", func() {
				from, to := f.events[start], f.events[end]
				if !f.timing[start] || !f.timing[end] || from.queue == nil || from.queue != to.queue || to.queue.done < to.until {
					f.t.Errorf("the time between events %d and %d is not known", start, end)
				}
				*ms = float32(to.until - from.until)
			})
		},
		cuEventDestroy: func(e handle) result { return do("cuEventDestroy", func() { delete(f.events, e) }) },
		cuEventRecord: func(e, s handle) result {
			return do("record", func() { f.events[e] = fakeMark{f.streams[s], len(f.streams[s].work)} })
		},
		cuEventSynchronize: func(e handle) result {
			return do("cuEventSynchronize", func() {
				if m := f.events[e]; m.queue != nil {
					f.run(m)
				}
			})
		},
	}
}

// launch checks a launch against the table, takes its parameters and puts the
// kernel in the queue.
func (f *fakeGPU) launch(fn handle, grid, block [3]uint32, shared uint32, s handle, params uintptr) {
	name := f.functions[fn]
	spec, ok := f.kernels[name]
	if !ok {
		f.t.Errorf("a launch of %q, which the table does not have", name)
		return
	}
	f.launched = append(f.launched, name)
	if fmt.Sprint(block[0]) != spec.block(name) || block[1] != 1 || block[2] != 1 {
		f.t.Errorf("%s is launched with blocks of %v, and the table says %s", name, block, spec.block(name))
	}
	if grid[0] == 0 || grid[1] == 0 || grid[1] > 65535 || grid[2] != 1 {
		f.t.Errorf("%s is launched on a grid of %v", name, grid)
	}
	if shared > 48<<10 && int32(shared) > f.allowed[fn] {
		f.t.Errorf("%s is launched with %d bytes of shared memory without leave", name, shared)
	}
	k := &fakeLaunch{gpu: f, name: name, values: map[string]uint64{}, x: int(grid[0]), y: int(grid[1]), shared: int(shared)}
	pointers := f.host(params, 8*len(spec.params))
	for i, p := range spec.params {
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
	f.enqueue(s, k.run)
}

// settled fails when something was not given back.
func (f *fakeGPU) settled() {
	f.t.Helper()
	if len(f.memory) > 0 || len(f.hosts) > 0 || len(f.streams) > 0 || len(f.events) > 0 || len(f.modules) > 0 || f.retained != 0 {
		f.t.Errorf("left behind: %d allocations, %d pinned, %d streams, %d events, %d modules, context retained %d times",
			len(f.memory), len(f.hosts), len(f.streams), len(f.events), len(f.modules), f.retained)
	}
}

func noCublas(int) (*cublasLt, []Attempt, error) { return nil, nil, errNoCublas }

func openFake(t *testing.T, f *fakeGPU, dtype DType, find func(int) (*cublasLt, []Attempt, error)) *Backend {
	t.Helper()
	b, err := open(f.driver(), 0, Options{DType: dtype}, f.images(), find)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
