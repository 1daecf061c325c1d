package cuda

import (
	"cmp"

	"seqembed/kernels/cuda/driver"
	"seqembed/kernels/cuda/gpu"
)

// Report lists the driver, the devices and the cuBLAS of a machine.
type Report struct {
	DriverVersion string    // the CUDA version that the driver supports, for example "12.4"; empty without one
	DriverSearch  []Attempt // where libcuda was looked for
	Err           error     // why there is no device, or nil
	Devices       []Device
	Cublas        Cublas

	KernelCache    string // where the driver keeps the kernels that it has compiled
	KernelCacheErr error  // why it keeps none and compiles them at every start, as far as that can be told
}

// Device is a GPU that the driver shows.
type Device struct {
	gpu.Info
	FreeMemory uint64 // bytes, 0 where it could not be asked
	Err        error  // why it cannot be used, or nil
}

// Cublas is the cuBLAS that multiplies, or why none does: then the package's own products serve.
type Cublas struct {
	Version  string    // empty where none does
	Searched []Attempt // where libcublasLt was looked for
	Err      error     // ErrCublasOff, a fault of the library that was found, or every place that was searched
}

// Attempt is one place where a library was looked for.
type Attempt = driver.Attempt

// TestedOn is the only GPU on which the package's tests have run, and passed, as of commit 590218f. Its kernels are
// those of today; the host's code has changed since, and has run on the software GPU.
const TestedOn = "NVIDIA H200 (compute capability 9.0, driver 580.159.04)"

// Tested reports whether the device has the compute capability of TestedOn.
func (d Device) Tested() bool { return d.Major == 9 && d.Minor == 0 }

// Devices looks for the driver, its devices and cuBLAS. It fails at nothing: the report has the errors. Asking a device
// for its free memory makes a context on it for a moment.
func Devices() Report { return devices(driver.System()) }

func devices(p driver.Places) Report {
	var r Report
	cuda, attempts, err := p.FindCUDA()
	r.DriverSearch, r.Err = attempts, err
	newest := 99 // without a driver every version of cuBLAS is worth a look
	if err == nil {
		if images, err := embeddedImages(); err != nil {
			r.Err = err
		} else {
			var version int
			version, r.Devices, r.Err = list(cuda, images)
			if version > 0 {
				r.DriverVersion = gpu.Version(version)
			}
			newest = version / 1000
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

// list describes every device that the driver shows.
func list(cuda *driver.CUDA, images []gpu.Image) (version int, found []Device, err error) {
	version, count, err := gpu.Count(cuda)
	if err != nil {
		return 0, nil, err
	}
	for ordinal := range count {
		info, err := gpu.Describe(cuda, ordinal, version)
		d := Device{Info: info, Err: cmp.Or(err, usable(info, images))}
		if d.Err == nil {
			d.FreeMemory, d.Err = freeMemory(cuda, info, images)
		}
		found = append(found, d)
	}
	return version, found, nil
}

func freeMemory(cuda *driver.CUDA, i gpu.Info, images []gpu.Image) (uint64, error) {
	d, err := gpu.Open(cuda, i, images)
	if err != nil {
		return 0, err
	}
	defer d.Close()
	free, _, err := d.Memory()
	return free, err
}

// Usable lists the ordinals of the devices that Open takes.
func (r Report) Usable() []int {
	var list []int
	for _, d := range r.Devices {
		if d.Err == nil {
			list = append(list, d.Ordinal)
		}
	}
	return list
}
