package gpu

import (
	"cmp"
	"fmt"
	"unsafe"

	"seqembed/kernels/cuda/driver"
)

// Context is the primary context of a device, current on the calling thread: see Device.Do. Err is the first failure;
// from there on the methods do nothing, and Do returns it. So a caller asks for errors only where the host itself uses
// the result of a call. CUDA is for those functions that need no more than the context.
type Context struct {
	*driver.CUDA
	Err error

	handle     driver.Handle
	images     []Image
	loaded     map[string]driver.Handle // modules by image
	kernels    map[string]Kernel
	log        Pinned // the messages of the driver's compiler
	parameters parameters
}

// Fail makes err the first failure, unless it is nil or there is one.
func (c *Context) Fail(err error) { c.Err = cmp.Or(c.Err, err) }

// Stream and Event order the work of a device. The zero value is none.
type (
	Stream driver.Handle
	Event  driver.Handle
)

// Pinned is host memory that the device copies from and to by itself. Go did not allocate it, and the garbage collector
// leaves it alone. The zero value is none.
type Pinned struct {
	At    unsafe.Pointer
	Bytes []byte // the same memory
}

// View gives n values of pinned memory, from a byte offset on that is a multiple of four.
func View[T int32 | float32](p Pinned, offset, n int) []T {
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&p.Bytes[offset : offset+4*n][0])), n)
}

// Upload copies bytes of pinned memory, from offset on, to the device, and returns at once.
func (c *Context) Upload(dst driver.Pointer, p Pinned, offset, bytes int, on Stream) {
	if c.Err != nil {
		return
	}
	if r := c.MemcpyHtoDAsync(dst, unsafe.Add(p.At, offset), uint64(bytes), driver.Handle(on)); r != 0 {
		c.Err = r.Err("cuMemcpyHtoDAsync of %d bytes", bytes)
	}
}

// Download copies from the device to the first bytes of pinned memory, and returns at once.
func (c *Context) Download(p Pinned, src driver.Pointer, bytes int, on Stream) {
	if c.Err != nil {
		return
	}
	if r := c.MemcpyDtoHAsync(p.At, src, uint64(bytes), driver.Handle(on)); r != 0 {
		c.Err = r.Err("cuMemcpyDtoHAsync of %d bytes", bytes)
	}
}

// Record lets an event happen when the stream has done all its work so far.
func (c *Context) Record(e Event, s Stream) {
	if c.Err == nil {
		c.Err = c.EventRecord(driver.Handle(e), driver.Handle(s)).Err("cuEventRecord")
	}
}

// Await makes later work on a stream wait for an event; one that was never recorded is no reason to wait.
func (c *Context) Await(s Stream, e Event) {
	if c.Err == nil {
		c.Err = c.StreamWaitEvent(driver.Handle(s), driver.Handle(e), 0).Err("cuStreamWaitEvent")
	}
}

// Order makes later work on stream waiting wait for all work already on first. The event may be used again at once.
func (c *Context) Order(first, waiting Stream, e Event) {
	c.Record(e, first)
	c.Await(waiting, e)
}

// Synchronize waits until a stream has nothing left to do.
func (c *Context) Synchronize(s Stream) {
	if c.Err == nil {
		c.Err = c.StreamSynchronize(driver.Handle(s)).Err("cuStreamSynchronize")
	}
}

// Milliseconds is the time between two events of NewTimer that have happened.
func (c *Context) Milliseconds(start, end Event) (ms float32) {
	if c.Err == nil {
		c.Err = c.EventElapsedTime(&ms, driver.Handle(start), driver.Handle(end)).Err("cuEventElapsedTime")
	}
	return ms
}

// Resources is memory, streams and events of a device that one owner has made and frees together.
type Resources struct {
	memory  []driver.Pointer
	pinned  []Pinned
	streams []Stream
	events  []Event
}

// Alloc allocates device memory, which begins on 256 bytes.
func (r *Resources) Alloc(c *Context, bytes int) (p driver.Pointer) {
	if c.Err != nil {
		return 0
	}
	if c.Err = c.MemAlloc(&p, uint64(bytes)).Err("cuMemAlloc of %d bytes", bytes); c.Err == nil {
		r.memory = append(r.memory, p)
	}
	return p
}

// Pin allocates pinned memory. Its failure is not driver.ErrOutOfMemory, which is about a device.
func (r *Resources) Pin(c *Context, bytes int) Pinned {
	if c.Err != nil {
		return Pinned{}
	}
	var p Pinned
	if err := c.MemAllocHost(&p.At, uint64(bytes)).Err("cuMemAllocHost of %d bytes", bytes); err != nil {
		c.Err = fmt.Errorf("no pinned memory on the host: %s", err)
		return Pinned{}
	}
	p.Bytes = unsafe.Slice((*byte)(p.At), bytes)
	r.pinned = append(r.pinned, p)
	return p
}

// NewStream makes a stream that does not wait for the default stream.
func (r *Resources) NewStream(c *Context) Stream {
	if c.Err != nil {
		return 0
	}
	var s driver.Handle
	if c.Err = c.StreamCreate(&s, driver.StreamNonBlocking).Err("cuStreamCreate"); c.Err == nil {
		r.streams = append(r.streams, Stream(s))
	}
	return Stream(s)
}

// NewEvent makes an event for which a host thread sleeps.
func (r *Resources) NewEvent(c *Context) Event {
	return r.event(c, driver.EventDisableTiming|driver.EventBlockingSync)
}

// NewTimer makes an event that keeps the time.
func (r *Resources) NewTimer(c *Context) Event { return r.event(c, driver.EventDefault) }

func (r *Resources) event(c *Context, flags uint32) Event {
	if c.Err != nil {
		return 0
	}
	var e driver.Handle
	if c.Err = c.EventCreate(&e, flags).Err("cuEventCreate"); c.Err == nil {
		r.events = append(r.events, Event(e))
	}
	return Event(e)
}

// Synchronize waits until the streams have nothing left to do.
func (r *Resources) Synchronize(c *Context) {
	for _, s := range r.streams {
		c.Synchronize(s)
	}
}

// Free waits for the streams and frees everything. Its calls can only fail when the context is broken, which frees
// everything with it.
func (r *Resources) Free(c *Context) {
	for _, s := range r.streams {
		c.StreamSynchronize(driver.Handle(s))
	}
	for _, p := range r.memory {
		c.MemFree(p)
	}
	for _, p := range r.pinned {
		c.MemFreeHost(p.At)
	}
	for _, e := range r.events {
		c.EventDestroy(driver.Handle(e))
	}
	for _, s := range r.streams {
		c.StreamDestroy(driver.Handle(s))
	}
	*r = Resources{}
}
