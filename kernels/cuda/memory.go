package cuda

import (
	"fmt"
	"unsafe"
)

// The functions of this file run on the device's thread.

// alloc allocates device memory, which begins on 256 bytes.
func (d *device) alloc(bytes int) (devicePtr, error) {
	var p devicePtr
	return p, d.drv.cuMemAlloc(&p, uint64(bytes)).err("cuMemAlloc of %d bytes", bytes)
}

// free gives device memory back; null is nothing.
func (d *device) free(p devicePtr) {
	if p != 0 {
		d.drv.cuMemFree(p)
	}
}

// pinned is host memory that the device copies from and to by itself. Go did
// not allocate it, and the garbage collector leaves it alone.
type pinned struct {
	at    unsafe.Pointer
	bytes []byte // the same memory
}

// pin allocates pinned memory. Its failure is not kernels.ErrOutOfMemory: what
// a runner pins follows from its limits, so that a smaller batch does not help.
func (d *device) pin(bytes int) (pinned, error) {
	var p pinned
	if err := d.drv.cuMemAllocHost(&p.at, uint64(bytes)).err("cuMemAllocHost of %d bytes", bytes); err != nil {
		return pinned{}, fmt.Errorf("no pinned memory on the host: %s", err)
	}
	p.bytes = unsafe.Slice((*byte)(p.at), bytes)
	return p, nil
}

// unpin gives pinned memory back; the zero value is nothing.
func (d *device) unpin(p pinned) {
	if p.at != nil {
		d.drv.cuMemFreeHost(p.at)
	}
}

// int32s views a part of pinned memory, from a byte offset that is a multiple
// of four, as n integers.
func (p pinned) int32s(offset, n int) []int32 {
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*int32)(unsafe.Pointer(&p.bytes[offset])), n)
}

// upload and download copy the first bytes of pinned memory, from offset on,
// and return at once.
func (d *device) upload(dst devicePtr, p pinned, offset, bytes int, stream handle) error {
	if r := d.drv.cuMemcpyHtoDAsync(dst, unsafe.Add(p.at, offset), uint64(bytes), stream); r != 0 {
		return r.err("cuMemcpyHtoDAsync of %d bytes", bytes)
	}
	return nil
}

func (d *device) download(p pinned, offset int, src devicePtr, bytes int, stream handle) error {
	if r := d.drv.cuMemcpyDtoHAsync(unsafe.Add(p.at, offset), src, uint64(bytes), stream); r != 0 {
		return r.err("cuMemcpyDtoHAsync of %d bytes", bytes)
	}
	return nil
}

// newStream and newEvent make what orders the work of a device. Streams do
// not wait for the default stream, events do not keep the time.
func (d *device) newStream() (handle, error) {
	var s handle
	return s, d.drv.cuStreamCreate(&s, streamNonBlocking).err("cuStreamCreate")
}

func (d *device) newEvent() (handle, error) {
	var e handle
	return e, d.drv.cuEventCreate(&e, eventDisableTiming|eventBlockingSync).err("cuEventCreate")
}

// after makes what is enqueued on waiting from here on wait for what has been
// enqueued on first; event marks the point and can be used again at once.
func (d *device) after(first, waiting, event handle) error {
	if err := d.drv.cuEventRecord(event, first).err("cuEventRecord"); err != nil {
		return err
	}
	return d.drv.cuStreamWaitEvent(waiting, event, 0).err("cuStreamWaitEvent")
}
