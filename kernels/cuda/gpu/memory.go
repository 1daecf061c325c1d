package gpu

import (
	"fmt"
	"unsafe"

	"seqembed/kernels/cuda/driver"
)

// Context is the primary context of a device, current on the calling thread: see Device.Do. CUDA is for those functions
// that need no more than the context.
type Context struct {
	*driver.CUDA
	handle     driver.Handle
	modules    modules
	parameters parameters
}

// Stream and Event order the work of a device. The zero value is none.
type (
	Stream driver.Handle
	Event  driver.Handle
)

// Alloc allocates device memory, which begins on 256 bytes.
func (c *Context) Alloc(bytes int) (driver.Pointer, error) {
	var p driver.Pointer
	return p, c.MemAlloc(&p, uint64(bytes)).Err("cuMemAlloc of %d bytes", bytes)
}

// Free gives device memory back; null is nothing.
func (c *Context) Free(p driver.Pointer) {
	if p != 0 {
		c.MemFree(p)
	}
}

// Pinned is host memory that the device copies from and to by itself. Go did not allocate it, and the garbage collector
// leaves it alone. The zero value is none.
type Pinned struct {
	At    unsafe.Pointer
	Bytes []byte // the same memory
}

// Pin allocates pinned memory. Its failure is not driver.ErrOutOfMemory, which is about a device.
func (c *Context) Pin(bytes int) (Pinned, error) {
	var p Pinned
	if err := c.MemAllocHost(&p.At, uint64(bytes)).Err("cuMemAllocHost of %d bytes", bytes); err != nil {
		return Pinned{}, fmt.Errorf("no pinned memory on the host: %s", err)
	}
	p.Bytes = unsafe.Slice((*byte)(p.At), bytes)
	return p, nil
}

// Unpin gives pinned memory back; the zero value is nothing.
func (c *Context) Unpin(p Pinned) {
	if p.At != nil {
		c.MemFreeHost(p.At)
	}
}

// Int32s views a part of pinned memory, from a byte offset that is a multiple of four, as n integers.
func (p Pinned) Int32s(offset, n int) []int32 {
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*int32)(unsafe.Pointer(&p.Bytes[offset])), n)
}

// Upload copies bytes of pinned memory, from offset on, to the device, and returns at once.
func (c *Context) Upload(dst driver.Pointer, p Pinned, offset, bytes int, on Stream) error {
	if r := c.MemcpyHtoDAsync(dst, unsafe.Add(p.At, offset), uint64(bytes), driver.Handle(on)); r != 0 {
		return r.Err("cuMemcpyHtoDAsync of %d bytes", bytes)
	}
	return nil
}

// Download copies from the device to the first bytes of pinned memory, and returns at once.
func (c *Context) Download(p Pinned, src driver.Pointer, bytes int, on Stream) error {
	if r := c.MemcpyDtoHAsync(p.At, src, uint64(bytes), driver.Handle(on)); r != 0 {
		return r.Err("cuMemcpyDtoHAsync of %d bytes", bytes)
	}
	return nil
}

// NewStream makes a stream that does not wait for the default stream.
func (c *Context) NewStream() (Stream, error) {
	var s driver.Handle
	err := c.StreamCreate(&s, driver.StreamNonBlocking).Err("cuStreamCreate")
	return Stream(s), err
}

// FreeStream gives a stream back; none is nothing.
func (c *Context) FreeStream(s Stream) {
	if s != 0 {
		c.StreamDestroy(driver.Handle(s))
	}
}

// Synchronize waits until a stream has nothing left to do.
func (c *Context) Synchronize(s Stream) error {
	return c.StreamSynchronize(driver.Handle(s)).Err("cuStreamSynchronize")
}

// NewEvent makes an event for which a host thread sleeps.
func (c *Context) NewEvent() (Event, error) {
	return c.event(driver.EventDisableTiming | driver.EventBlockingSync)
}

// NewTimer makes an event that keeps the time.
func (c *Context) NewTimer() (Event, error) { return c.event(driver.EventDefault) }

func (c *Context) event(flags uint32) (Event, error) {
	var e driver.Handle
	err := c.EventCreate(&e, flags).Err("cuEventCreate")
	return Event(e), err
}

// FreeEvent gives an event back; none is nothing.
func (c *Context) FreeEvent(e Event) {
	if e != 0 {
		c.EventDestroy(driver.Handle(e))
	}
}

// Record lets an event happen when the stream has done all its work so far.
func (c *Context) Record(e Event, s Stream) error {
	return c.EventRecord(driver.Handle(e), driver.Handle(s)).Err("cuEventRecord")
}

// Await makes later work on a stream wait for an event; one that was never recorded is no reason to wait.
func (c *Context) Await(s Stream, e Event) error {
	return c.StreamWaitEvent(driver.Handle(s), driver.Handle(e), 0).Err("cuStreamWaitEvent")
}

// Order makes later work on a stream wait for all work already on the first. The event may be used again at once.
func (c *Context) Order(first, waiting Stream, e Event) error {
	if err := c.Record(e, first); err != nil {
		return err
	}
	return c.Await(waiting, e)
}

// Milliseconds is the time between two events of NewTimer that have happened.
func (c *Context) Milliseconds(start, end Event) (float32, error) {
	var ms float32
	err := c.EventElapsedTime(&ms, driver.Handle(start), driver.Handle(end)).Err("cuEventElapsedTime")
	return ms, err
}
