package cuda

import (
	"bytes"
	"fmt"
)

// Device is a GPU that the driver shows, counted as PyTorch counts: after
// CUDA_VISIBLE_DEVICES, which the driver itself obeys.
type Device struct {
	Ordinal       int
	Name          string // for example "NVIDIA H200"
	Major, Minor  int    // the compute capability
	TotalMemory   uint64 // bytes
	FreeMemory    uint64 // bytes, 0 where it could not be asked
	Err           error  // why it cannot be used, or nil
	driverVersion int
	id            int32
}

// String names the device, its capability and its memory.
func (d Device) String() string {
	return fmt.Sprintf("%d: %s, compute capability %d.%d, %s", d.Ordinal, d.Name, d.Major, d.Minor, gigabytes(d.TotalMemory))
}

func gigabytes(bytes uint64) string { return fmt.Sprintf("%.1f GiB", float64(bytes)/(1<<30)) }

// leastMajor is the compute capability that the kernels need: Ampere, the
// first with bfloat16 and asynchronous copies.
const leastMajor = 8

// start initialises the driver and counts its devices.
func (d *driver) start() (version, devices int, err error) {
	if r := d.cuInit(0); r == codeNoDevice {
		return 0, 0, unavailablef(r.err("cuInit"), "there is no NVIDIA GPU, or CUDA_VISIBLE_DEVICES hides it")
	} else if err := r.err("cuInit"); err != nil {
		return 0, 0, unavailablef(err, "the NVIDIA driver does not start")
	}
	var v, n int32
	if err := d.cuDriverGetVersion(&v).err("cuDriverGetVersion"); err != nil {
		return 0, 0, err
	}
	if err := d.cuDeviceGetCount(&n).err("cuDeviceGetCount"); err != nil {
		return 0, 0, err
	}
	if n == 0 {
		return 0, 0, unavailablef(nil, "there is no NVIDIA GPU, or CUDA_VISIBLE_DEVICES hides it")
	}
	return int(v), int(n), nil
}

// describe asks for everything about a device that needs no context.
func (d *driver) describe(ordinal, version int) (Device, error) {
	dev := Device{Ordinal: ordinal, driverVersion: version}
	if err := d.cuDeviceGet(&dev.id, int32(ordinal)).err("cuDeviceGet of device %d", ordinal); err != nil {
		return dev, err
	}
	name := make([]byte, 256)
	var major, minor int32
	err := first(
		d.cuDeviceGetName(&name[0], int32(len(name)), dev.id).err("cuDeviceGetName of device %d", ordinal),
		d.cuDeviceGetAttribute(&major, attributeMajor, dev.id).err("compute capability of device %d", ordinal),
		d.cuDeviceGetAttribute(&minor, attributeMinor, dev.id).err("compute capability of device %d", ordinal),
		d.cuDeviceTotalMem(&dev.TotalMemory, dev.id).err("cuDeviceTotalMem of device %d", ordinal))
	text, _, _ := bytes.Cut(name, []byte{0})
	dev.Name, dev.Major, dev.Minor = string(text), int(major), int(minor)
	if err == nil && dev.Major < leastMajor {
		dev.Err = unavailablef(nil, "%s (device %d) has compute capability %d.%d, and 8.0 is the least", dev.Name, ordinal, dev.Major, dev.Minor)
	}
	return dev, err
}

// device is an open GPU: its context and the thread that owns it. Fields
// below thread are used on the thread only.
type device struct {
	Device
	drv     *driver
	context handle
	thread  *thread

	code   *code
	params *parameters
}

// openDevice retains the primary context, which cuBLAS shares, and makes it
// current on a thread of its own.
func openDevice(drv *driver, ordinal int, images []image) (*device, error) {
	version, count, err := drv.start()
	if err != nil {
		return nil, err
	}
	if ordinal < 0 || ordinal >= count {
		return nil, unavailablef(nil, "there is no device %d: %d visible, counted from 0 after CUDA_VISIBLE_DEVICES", ordinal, count)
	}
	found, err := drv.describe(ordinal, version)
	if err = first(err, found.Err); err != nil {
		return nil, err
	}
	if err := checkDriver(version, images); err != nil {
		return nil, err
	}
	d := &device{Device: found, drv: drv}
	d.thread, err = startThread(func() error { return d.enter(images) }, d.leave)
	if err != nil {
		return nil, fmt.Errorf("device %d, %s: %w", ordinal, found.Name, err)
	}
	return d, nil
}

// enter runs first on the device's thread; when it fails it leaves nothing
// behind.
func (d *device) enter(images []image) error {
	if err := d.drv.cuDevicePrimaryCtxRetain(&d.context, d.id).err("cuDevicePrimaryCtxRetain"); err != nil {
		return err
	}
	err := d.drv.cuCtxSetCurrent(d.context).err("cuCtxSetCurrent")
	if err == nil {
		d.code = &code{drv: d.drv, driverVersion: d.driverVersion, images: images,
			modules: map[string]handle{}, functions: map[string]handle{}, shared: map[string]uint32{}}
		d.code.log, err = d.pin(8 << 10)
	}
	if err == nil {
		d.params, err = d.newParameters()
	}
	if err != nil {
		d.leave()
	}
	return err
}

// leave runs last on the device's thread. Its calls can only fail when the
// context is broken, which frees everything with it.
func (d *device) leave() {
	if d.code != nil {
		d.code.unload()
		d.unpin(d.code.log)
	}
	if d.params != nil {
		d.unpin(d.params.memory)
	}
	d.drv.cuCtxSetCurrent(0)
	d.drv.cuDevicePrimaryCtxRelease(d.id)
}

// memory asks how much of the device is free.
func (d *device) memory() (free, total uint64, err error) {
	err = d.thread.call(func() error { return d.drv.cuMemGetInfo(&free, &total).err("cuMemGetInfo") })
	return free, total, err
}

// close stops the thread and releases the context.
func (d *device) close() { d.thread.stop() }
