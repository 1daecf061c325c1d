// Package gpu represents one GPU: its context, memory, streams, events, modules and launches. It uses the functions of
// package driver.
//
// A Device may be used from any goroutine. The driver has a current context for each thread of the operating system,
// but goroutines change threads. Therefore functions that need the context are methods of Context, and only Do provides
// one: it locks the goroutine to its thread and makes the context current there. Do runs for one goroutine at a time.
// Wait does not need Do, so waiting for the device does not delay the launches of other goroutines.
//
// The package must not know the operations of models.
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

// Info describes a GPU that the driver shows. Ordinals count the devices that CUDA_VISIBLE_DEVICES leaves, as in
// PyTorch; the driver itself obeys that variable.
type Info struct {
	Ordinal      int
	Name         string // for example "NVIDIA H200"
	Major, Minor int    // compute capability
	TotalMemory  uint64 // in bytes
	PCI          string // address on the PCI bus, for example "00000000:17:00.0"; a MIG device has that of its GPU
	Driver       int    // CUDA version that the driver supports, for example 12040 for CUDA 12.4

	id int32
}

// Count initializes the driver and returns its CUDA version and its number of devices. If the driver does not start or
// has no device, the error wraps driver.ErrUnavailable.
func Count(cuda *driver.CUDA) (version, devices int, err error) {
	started := cuda.Init(0)
	if err := started.Err("cuInit"); err != nil && started != driver.NoDevice {
		return 0, 0, driver.Unavailable("the NVIDIA driver does not start: %w", err)
	}
	var v, n int32
	if started == 0 {
		err = cmp.Or(cuda.DriverGetVersion(&v).Err("cuDriverGetVersion"), cuda.DeviceGetCount(&n).Err("cuDeviceGetCount"))
	}
	if err == nil && n == 0 {
		err = driver.Unavailable("there is no NVIDIA GPU, or CUDA_VISIBLE_DEVICES hides it")
	}
	return int(v), int(n), err
}

// Describe returns those properties of a device that can be read without a context. Count must have been called before.
func Describe(cuda *driver.CUDA, ordinal, version int) (Info, error) {
	i := Info{Ordinal: ordinal, Driver: version}
	if err := cuda.DeviceGet(&i.id, int32(ordinal)).Err("cuDeviceGet of device %d", ordinal); err != nil {
		return i, err
	}
	name := make([]byte, 256)
	var major, minor, domain, bus, slot int32
	err := cmp.Or(
		cuda.DeviceGetName(&name[0], int32(len(name)), i.id).Err("cuDeviceGetName of device %d", ordinal),
		cuda.DeviceGetAttribute(&major, driver.AttributeMajor, i.id).Err("compute capability of device %d", ordinal),
		cuda.DeviceGetAttribute(&minor, driver.AttributeMinor, i.id).Err("compute capability of device %d", ordinal),
		cuda.DeviceGetAttribute(&domain, driver.AttributePCIDomain, i.id).Err("PCI domain of device %d", ordinal),
		cuda.DeviceGetAttribute(&bus, driver.AttributePCIBus, i.id).Err("PCI bus of device %d", ordinal),
		cuda.DeviceGetAttribute(&slot, driver.AttributePCIDevice, i.id).Err("PCI device of device %d", ordinal),
		cuda.DeviceTotalMem(&i.TotalMemory, i.id).Err("cuDeviceTotalMem of device %d", ordinal))
	text, _, _ := bytes.Cut(name, []byte{0})
	i.Name, i.Major, i.Minor = string(text), int(major), int(minor)
	i.PCI = fmt.Sprintf("%08x:%02x:%02x.0", domain, bus, slot)
	return i, err
}

// Device is an open GPU.
type Device struct {
	Info
	context Context
	own     Resources    // resources that are freed with the device
	work    sync.Mutex   // held while Do runs
	life    sync.RWMutex // read-locked while the context is current on a thread; guards closed
	closed  bool
}

// ErrClosed is the error of calls on a device that has been closed.
var ErrClosed = errors.New("the device has been closed")

// Open retains the primary context of a device, which cuBLAS uses as well. images contains the kernels for the device.
func Open(cuda *driver.CUDA, i Info, images []Image) (*Device, error) {
	d := &Device{Info: i, context: Context{CUDA: cuda, images: images,
		loaded: map[string]driver.Handle{}, kernels: map[string]Kernel{}}}
	err := cuda.DevicePrimaryCtxRetain(&d.context.handle, i.id).Err("cuDevicePrimaryCtxRetain")
	if err == nil {
		err = d.Do(func(c *Context) {
			c.log = d.own.Pin(c, 8<<10)
			c.parameters = pinParameters(c, &d.own)
		})
		if err != nil {
			d.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("device %d, %s: %w", i.Ordinal, i.Name, err)
	}
	return d, nil
}

// Do calls the function work with the device's context, and returns the first error. The context is current on the
// thread until that function returns. Only one call of Do runs at a time. The function must not call Do or Wait.
func (d *Device) Do(work func(*Context)) error {
	d.work.Lock()
	defer d.work.Unlock()
	if err := d.enter(); err != nil {
		return err
	}
	defer d.leave()
	d.context.Err = nil
	work(&d.context)
	return d.context.Err
}

// Wait waits until the events have happened. Meanwhile other goroutines may be in Do.
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

// enter locks the goroutine to its thread and makes the context current. After enter has succeeded, leave must be
// called.
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

// leave removes the context from the thread and unlocks the thread. So a call that needs the context fails outside Do
// and Wait on every thread, even on a thread that has been in Do.
func (d *Device) leave() {
	d.context.CtxSetCurrent(0)
	runtime.UnlockOSThread()
	d.life.RUnlock()
}

// Memory returns the number of free bytes on the device.
func (d *Device) Memory() (free uint64, err error) {
	var total uint64
	err = d.Do(func(c *Context) { c.Fail(c.MemGetInfo(&free, &total).Err("cuMemGetInfo")) })
	return free, err
}

// Free waits for the streams of r and frees all of r. It does nothing if the device has been closed.
func (d *Device) Free(r *Resources) error {
	err := d.Do(r.Free)
	if errors.Is(err, ErrClosed) {
		return nil
	}
	return err
}

// Close unloads the kernels and releases the context. If nobody else uses the context, the driver then frees everything
// that is left on the device.
func (d *Device) Close() {
	_ = d.Do(func(c *Context) {
		for _, module := range c.loaded {
			c.ModuleUnload(module)
		}
		d.own.Free(c)
	})
	d.life.Lock()
	defer d.life.Unlock()
	if !d.closed {
		d.closed = true
		d.context.DevicePrimaryCtxRelease(d.id)
	}
}
