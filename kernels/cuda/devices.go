package cuda

import (
	"cmp"

	"seqembed/kernels/cuda/driver"
	"seqembed/kernels/cuda/gpu"
)

// Report describes the driver, the devices and the cuBLAS of a machine.
type Report struct {
	DriverVersion string    // the CUDA version that the driver supports, for example "12.4"; empty if there is no driver
	DriverSearch  []Attempt // the places where libcuda was searched for
	Err           error     // the reason why there is no device, or nil
	Devices       []Device
	Cublas        Cublas

	KernelCache    string // the folder in which the driver caches compiled kernels
	KernelCacheErr error  // the reason, if known, why the driver cannot cache kernels and compiles them at every start
}

// Device is a GPU that the driver shows.
type Device struct {
	gpu.Info
	FreeMemory uint64 // in bytes; 0 if unknown
	Err        error  // the reason why the device cannot be used, or nil
}

// Cublas describes the cuBLAS that computes matrix products, or the reason why there is none. Without cuBLAS the
// package's own kernels compute them.
type Cublas struct {
	Version  string    // for example "13.1.0"; empty if there is no cuBLAS
	Searched []Attempt // the places where libcublasLt was searched for
	Err      error     // the reason why there is no cuBLAS, or nil; see ErrCublasOff
}

// Attempt is a place where a library was searched for.
type Attempt = driver.Attempt

// TestedOn is the only GPU on which the package's tests have passed. They passed with the Go code of commit 590218f;
// the kernels have not changed since then. The Go code of later commits has been tested only on the software GPU
// (package softgpu).
const TestedOn = "NVIDIA H200 (compute capability 9.0, driver 580.159.04)"

// Tested reports whether the device has the compute capability of TestedOn.
func (d Device) Tested() bool { return d.Major == 9 && d.Minor == 0 }

// Devices searches for the driver, its devices and cuBLAS. It returns all errors in the report. It creates a context on
// each usable device for a moment, to find out how much memory is free.
func Devices() Report { return devices(driver.System()) }

func devices(p driver.Places) Report {
	var r Report
	cuda, attempts, err := p.FindCUDA()
	r.DriverSearch, r.Err = attempts, err
	newest := 99 // major CUDA version of the driver; without a driver, a cuBLAS of any version is reported
	if err == nil {
		if images, err := embeddedImages(); err != nil {
			r.Err = err
		} else {
			var version int
			version, r.Devices, r.Err = describe(cuda, images)
			for i := range r.Devices {
				r.Devices[i].askMemory(cuda, images)
			}
			if version > 0 {
				r.DriverVersion, newest = gpu.Version(version), version/1000
			}
		}
	}
	lt, searched, err := cublasIn(p)(newest)
	r.Cublas = Cublas{Searched: searched, Err: err}
	if err == nil {
		r.Cublas.Version = cublasVersion(lt.Version())
	}
	r.KernelCache, r.KernelCacheErr = p.KernelCache()
	return r
}

// describe returns every device that the driver shows, and the CUDA version that the driver supports.
func describe(cuda *driver.CUDA, images []gpu.Image) (version int, found []Device, err error) {
	version, count, err := gpu.Count(cuda)
	if err != nil {
		return 0, nil, err
	}
	for ordinal := range count {
		info, err := gpu.Describe(cuda, ordinal, version)
		found = append(found, Device{Info: info, Err: cmp.Or(err, usable(info, images))})
	}
	return version, found, nil
}

// askMemory opens the device for a moment to set FreeMemory.
func (d *Device) askMemory(cuda *driver.CUDA, images []gpu.Image) {
	if d.Err != nil {
		return
	}
	var opened *gpu.Device
	if opened, d.Err = gpu.Open(cuda, d.Info, images); d.Err == nil {
		d.FreeMemory, d.Err = opened.Memory()
		opened.Close()
	}
}

// Usable returns the ordinals of the devices that Open can open.
func (r Report) Usable() []int {
	var list []int
	for _, d := range r.Devices {
		if d.Err == nil {
			list = append(list, d.Ordinal)
		}
	}
	return list
}
