// Package gpu is one GPU: its context, memory, streams, events, modules and launches, on the functions of package
// driver.
//
// A Device may be used from any goroutine. The driver keeps a context for each thread of the operating system, and
// goroutines change threads: so functions that need the context are methods of Context, and only Do gives a Context: it
// makes it current on the thread and holds the goroutine there. One goroutine at a time is in Do; waiting for the
// device is outside it, in Wait, so that nobody's wait holds up another's launches.
//
// The package knows no operation of any model.
package gpu

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"seqembed/kernels/cuda/driver"
)

// Info describes a GPU that the driver shows, counted as PyTorch counts: after CUDA_VISIBLE_DEVICES, which the driver
// itself obeys.
type Info struct {
	Ordinal      int
	Name         string // for example "NVIDIA H200"
	Major, Minor int    // the compute capability
	TotalMemory  uint64 // bytes
	Driver       int    // the CUDA version that the driver supports: see Version

	id int32
}

// Count starts the driver and counts its devices. An error is driver.ErrUnavailable where there is nothing to use.
func Count(cuda *driver.CUDA) (version, devices int, err error) {
	if r := cuda.Init(0); r == driver.NoDevice {
		return 0, 0, driver.Unavailable(r.Err("cuInit"), "there is no NVIDIA GPU, or CUDA_VISIBLE_DEVICES hides it")
	} else if err := r.Err("cuInit"); err != nil {
		return 0, 0, driver.Unavailable(err, "the NVIDIA driver does not start")
	}
	var v, n int32
	if err := cuda.DriverGetVersion(&v).Err("cuDriverGetVersion"); err != nil {
		return 0, 0, err
	}
	if err := cuda.DeviceGetCount(&n).Err("cuDeviceGetCount"); err != nil {
		return 0, 0, err
	}
	if n == 0 {
		return 0, 0, driver.Unavailable(nil, "there is no NVIDIA GPU, or CUDA_VISIBLE_DEVICES hides it")
	}
	return int(v), int(n), nil
}

// Describe asks for everything about a device that needs no context, once Count has started the driver.
func Describe(cuda *driver.CUDA, ordinal, version int) (Info, error) {
	i := Info{Ordinal: ordinal, Driver: version}
	if err := cuda.DeviceGet(&i.id, int32(ordinal)).Err("cuDeviceGet of device %d", ordinal); err != nil {
		return i, err
	}
	name := make([]byte, 256)
	var major, minor int32
	err := cmp.Or(
		cuda.DeviceGetName(&name[0], int32(len(name)), i.id).Err("cuDeviceGetName of device %d", ordinal),
		cuda.DeviceGetAttribute(&major, driver.AttributeMajor, i.id).Err("compute capability of device %d", ordinal),
		cuda.DeviceGetAttribute(&minor, driver.AttributeMinor, i.id).Err("compute capability of device %d", ordinal),
		cuda.DeviceTotalMem(&i.TotalMemory, i.id).Err("cuDeviceTotalMem of device %d", ordinal))
	text, _, _ := bytes.Cut(name, []byte{0})
	i.Name, i.Major, i.Minor = string(text), int(major), int(minor)
	return i, err
}

// Device is an open GPU.
type Device struct {
	Info
	context Context
	work    sync.Mutex   // one goroutine at a time is in Do
	life    sync.RWMutex // read by everyone who has the context current; guards closed
	closed  bool
}

// ErrClosed is the error of a device that has been closed.
var ErrClosed = errors.New("the device has been closed")

// Open retains the primary context of a device, which cuBLAS shares. Its kernels are in images.
func Open(cuda *driver.CUDA, i Info, images []Image) (*Device, error) {
	d := &Device{Info: i}
	d.context = Context{CUDA: cuda, modules: modules{cuda: cuda, driverVersion: i.Driver, images: images,
		loaded: map[string]driver.Handle{}, functions: map[string]driver.Handle{}, shared: map[string]int{}}}
	c := &d.context
	if err := cuda.DevicePrimaryCtxRetain(&c.handle, i.id).Err("cuDevicePrimaryCtxRetain"); err != nil {
		return nil, fmt.Errorf("device %d, %s: %w", i.Ordinal, i.Name, err)
	}
	err := d.Do(func(c *Context) (err error) {
		if c.modules.log, err = c.Pin(8 << 10); err == nil {
			err = c.pinParameters()
		}
		return err
	})
	if err != nil {
		d.Close()
		return nil, fmt.Errorf("device %d, %s: %w", i.Ordinal, i.Name, err)
	}
	return d, nil
}

// Do calls work with the device's context, which is current on the calling goroutine's thread until work returns. Work
// of several goroutines follows each other. It must not call Do or Wait.
func (d *Device) Do(work func(*Context) error) error {
	d.work.Lock()
	defer d.work.Unlock()
	if err := d.enter(); err != nil {
		return err
	}
	defer d.leave()
	return work(&d.context)
}

// Wait returns when the events have happened, and beside the work of others.
func (d *Device) Wait(events ...Event) error {
	if err := d.enter(); err != nil {
		return err
	}
	defer d.leave()
	for _, e := range events {
		if err := d.context.EventSynchronize(driver.Handle(e)).Err("cuEventSynchronize"); err != nil {
			return err
		}
	}
	return nil
}

// enter makes the context current and holds the goroutine on its thread; without an error, leave has to follow.
func (d *Device) enter() error {
	d.life.RLock()
	err := ErrClosed
	if !d.closed {
		runtime.LockOSThread()
		if err = d.context.CtxSetCurrent(d.context.handle).Err("cuCtxSetCurrent"); err == nil {
			return nil
		}
		runtime.UnlockOSThread()
	}
	d.life.RUnlock()
	return err
}

// leave lets go of the thread, without a context: a call outside Do fails then, and not only sometimes.
func (d *Device) leave() {
	d.context.CtxSetCurrent(0)
	runtime.UnlockOSThread()
	d.life.RUnlock()
}

// Memory asks how much of the device is free.
func (d *Device) Memory() (free, total uint64, err error) {
	err = d.Do(func(c *Context) error { return c.MemGetInfo(&free, &total).Err("cuMemGetInfo") })
	return free, total, err
}

// Close releases the context, and with it everything on the device that nobody else uses. Its calls can only fail when
// the context is broken, which frees everything with it.
func (d *Device) Close() {
	_ = d.Do(func(c *Context) error {
		c.modules.unload()
		c.Unpin(c.modules.log)
		c.Unpin(c.parameters.memory)
		return nil
	})
	d.life.Lock()
	defer d.life.Unlock()
	if !d.closed {
		d.closed = true
		d.context.DevicePrimaryCtxRelease(d.id)
	}
}
