package gpu

import (
	"cmp"
	"fmt"
	"unsafe"

	"seqembed/kernels/cuda/driver"
)

// Context is the primary context of a device, current on the calling thread (see Device.Do). Err is the first error.
// After an error all methods of Context do nothing, and Do returns the error. So a caller checks Err only before it
// uses the result of a call on the host. The functions of the embedded CUDA do not look at Err.
type Context struct {
	*driver.CUDA
	Err error

	handle     driver.Handle
	images     []Image
	loaded     map[string]driver.Handle // modules by the name of their image
	kernels    map[string]Kernel
	log        Pinned // memory for messages of the driver's PTX compiler
	parameters parameters
}

// Fail sets Err to err, unless Err is already set.
func (c *Context) Fail(err error) { c.Err = cmp.Or(c.Err, err) }

// Stream and Event order the work of a device. The zero value is not a stream or event.
type (
	Stream driver.Handle
	Event  driver.Handle
)

// Pinned is host memory that the device can access directly. Go did not allocate it, so the garbage collector ignores
// it. The zero value is no memory.
type Pinned struct {
	At    unsafe.Pointer
	Bytes []byte // the same memory as a slice
}

// View returns n values of pinned memory, starting at a byte offset that is a multiple of four.
func View[T int32 | float32](p Pinned, offset, n int) []T {
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&p.Bytes[offset : offset+4*n][0])), n)
}

// Upload enqueues a copy from pinned memory to the device. offset and bytes are the start and the length of the part of
// p that is copied.
func (c *Context) Upload(dst driver.Pointer, p Pinned, offset, bytes int, on Stream) {
	if c.Err != nil {
		return
	}
	if r := c.MemcpyHtoDAsync(dst, unsafe.Add(p.At, offset), uint64(bytes), driver.Handle(on)); r != 0 {
		c.Err = r.Err("cuMemcpyHtoDAsync of %d bytes", bytes)
	}
}

// Download enqueues a copy from the device to the start of pinned memory. bytes is the length of the copy.
func (c *Context) Download(p Pinned, src driver.Pointer, bytes int, on Stream) {
	if c.Err != nil {
		return
	}
	if r := c.MemcpyDtoHAsync(p.At, src, uint64(bytes), driver.Handle(on)); r != 0 {
		c.Err = r.Err("cuMemcpyDtoHAsync of %d bytes", bytes)
	}
}

// Record records an event, which happens when the stream has finished all its work so far.
func (c *Context) Record(e Event, s Stream) {
	if c.Err == nil {
		c.Err = c.EventRecord(driver.Handle(e), driver.Handle(s)).Err("cuEventRecord")
	}
}

// Await makes later work on a stream wait for an event. It has no effect if the event was never recorded.
func (c *Context) Await(s Stream, e Event) {
	if c.Err == nil {
		c.Err = c.StreamWaitEvent(driver.Handle(s), driver.Handle(e), 0).Err("cuStreamWaitEvent")
	}
}

// Order makes one stream wait for another: all work that is already on the stream "first" is done before later work on
// the stream "waiting" starts. The event may be used again as soon as Order returns.
func (c *Context) Order(first, waiting Stream, e Event) {
	c.Record(e, first)
	c.Await(waiting, e)
}

// Synchronize waits until a stream has finished all its work.
func (c *Context) Synchronize(s Stream) {
	if c.Err == nil {
		c.Err = c.StreamSynchronize(driver.Handle(s)).Err("cuStreamSynchronize")
	}
}

// Milliseconds returns the time between two events of NewTimer, which must have happened.
func (c *Context) Milliseconds(start, end Event) (ms float32) {
	if c.Err == nil {
		c.Err = c.EventElapsedTime(&ms, driver.Handle(start), driver.Handle(end)).Err("cuEventElapsedTime")
	}
	return ms
}

// Resources is a set of memory, streams and events of a device that are freed together.
type Resources struct {
	memory  []driver.Pointer
	pinned  []Pinned
	streams []Stream
	events  []Event
}

// Alloc allocates device memory, aligned to at least 16 bytes.
func (r *Resources) Alloc(c *Context, bytes int) (p driver.Pointer) {
	if c.Err != nil {
		return 0
	}
	if c.Err = c.MemAlloc(&p, uint64(bytes)).Err("cuMemAlloc of %d bytes", bytes); c.Err == nil {
		r.memory = append(r.memory, p)
	}
	return p
}

// Pin allocates pinned memory. If it fails, the error does not wrap driver.ErrOutOfMemory, which is about the memory of
// a device.
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

// NewStream creates a stream that does not wait for the default stream.
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

// NewEvent creates an event that records no time. A host thread that waits for it sleeps instead of spinning.
func (r *Resources) NewEvent(c *Context) Event {
	return r.event(c, driver.EventDisableTiming|driver.EventBlockingSync)
}

// NewTimer creates an event that records the time, for Milliseconds.
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

// Synchronize waits until all streams of r have finished their work.
func (r *Resources) Synchronize(c *Context) {
	for _, s := range r.streams {
		c.Synchronize(s)
	}
}

// Free waits for the streams and frees everything in r. It ignores errors: its calls fail only if the context is
// broken, and the driver frees the resources of a broken context itself.
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
