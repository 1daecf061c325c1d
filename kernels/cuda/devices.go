package cuda

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Report is what a machine offers, for people to read.
type Report struct {
	DriverVersion int       // the CUDA version that the driver supports, 1000 · major + 10 · minor; 0 without one
	DriverSearch  []Attempt // where libcuda was looked for
	Err           error     // why there is no device, or nil
	Devices       []Device  // each with the reason why it cannot be used, if there is one

	CublasVersion string    // empty where cuBLAS was not found
	CublasSearch  []Attempt // where libcublasLt was looked for
	CublasErr     error     // why it is not used

	KernelCache    string // where the driver keeps the kernels that it has compiled
	KernelCacheErr error  // why it keeps none and compiles them at every start, as far as that can be told
}

// TestedOn is the only GPU on which the package's tests have run, and passed, as
// of commit 590218f. Its kernels are those of today; the host's code has changed
// since, and has run on the software GPU.
const TestedOn = "NVIDIA H200 (compute capability 9.0, driver 580.159.04)"

// Tested reports whether the device has the compute capability of TestedOn.
func (d Device) Tested() bool { return d.Major == 9 && d.Minor == 0 }

// OwnProductsCost says what a GPU loses without cuBLAS. The figure is that of
// docs/performance.md.
const OwnProductsCost = "the program's own matrix products serve; " +
	"on an H200 they made ESM-2 650M 35% slower in bf16"

// searchHint says how a reader gets the lists of places.
const searchHint = "(embed devices --verbose lists the places searched)"

// Devices looks for the driver, its devices and cuBLAS. It fails at nothing:
// what is missing is in the report. Asking a device for its free memory makes
// a context on it for a moment.
func Devices() Report { return devices(realPlaces()) }

func devices(p places) Report {
	var r Report
	drv, attempts, err := p.findDriver()
	r.DriverSearch, r.Err = attempts, err
	newest := 99 // without a driver every version of cuBLAS is worth a look
	if err == nil {
		if images, err := embeddedImages(); err != nil {
			r.Err = err
		} else {
			r.DriverVersion, r.Devices, r.Err = drv.list(images)
			newest = r.DriverVersion / 1000
		}
	}
	lt, searched, err := p.findCublas(newest)
	r.CublasSearch, r.CublasErr = searched, err
	if err == nil {
		r.CublasVersion = cublasVersion(lt.version())
	}
	r.KernelCache, r.KernelCacheErr = p.kernelCache()
	return r
}

// list describes every device that the driver shows.
func (d *driver) list(images []image) (version int, found []Device, err error) {
	version, count, err := d.start()
	if err != nil {
		return 0, nil, err
	}
	old := checkDriver(version, images)
	for ordinal := range count {
		device, err := d.describe(ordinal, version)
		device.Err = first(err, device.Err, old)
		if device.Err == nil {
			device.FreeMemory, device.Err = d.freeMemory(ordinal, images)
		}
		found = append(found, device)
	}
	return version, found, nil
}

func (d *driver) freeMemory(ordinal int, images []image) (uint64, error) {
	device, err := openDevice(d, ordinal, images)
	if err != nil {
		return 0, err
	}
	defer device.close()
	free, _, err := device.memory()
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

// String is the report in a few lines of text.
func (r Report) String() string { return r.text(false) }

// Details is the report with every place that was searched.
func (r Report) Details() string { return r.text(true) }

func (r Report) text(details bool) string {
	var text strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&text, format+"\n", args...) }
	places := func(searched []Attempt) {
		for _, a := range searched {
			if details {
				line("  %s", a)
			}
		}
	}
	hint := " " + searchHint
	if details {
		hint = ""
	}
	if r.DriverVersion > 0 {
		line("driver: supports CUDA %s", cudaVersion(r.DriverVersion))
	}
	switch n := len(r.DriverSearch); {
	case r.Err == nil:
	case n > 0 && r.DriverSearch[n-1].Err != nil:
		line("no device: %v%s", r.Err, hint)
	default: // the driver was found, and where is of no interest
		line("no device: %v", r.Err)
	}
	places(r.DriverSearch)
	for _, d := range r.Devices {
		if d.Err != nil {
			line("device %s: cannot be used: %v", d, d.Err)
		} else {
			line("device %s, %s free", d, gigabytes(d.FreeMemory))
		}
	}
	if len(r.Usable()) > 0 || details { // without a device nobody asks for cuBLAS
		switch {
		case r.CublasVersion != "":
			line("cuBLASLt: %s", r.CublasVersion)
		case r.CublasErr != nil:
			line("cuBLASLt: %s%s", withoutCublas(r.CublasErr, r.CublasSearch), hint)
		}
		places(r.CublasSearch)
	}
	if len(r.Usable()) > 0 {
		line("tested on: %s", TestedOn)
	}
	if details && r.DriverVersion > 0 {
		if r.KernelCacheErr != nil {
			line("compiled kernels: not kept, every start compiles them again: %v", r.KernelCacheErr)
		} else {
			line("compiled kernels: kept by the driver in %s", r.KernelCache)
		}
	}
	return text.String()
}

// withoutCublas says in one line why cuBLAS is not used and what that costs.
func withoutCublas(err error, searched []Attempt) string {
	why := strings.TrimPrefix(err.Error(), errNoCublas.Error()+": ")
	if n := len(searched); n > 0 && searched[n-1].Err != nil {
		// That a library is not there says nothing; what else is wrong does.
		why = "not found"
		if broken := slices.DeleteFunc(slices.Clone(searched), Attempt.missing); len(broken) > 0 {
			why = describe(broken)
		}
	}
	return why + ": " + OwnProductsCost
}

// kernelCache is the folder in which the driver keeps compiled kernels, by its
// documented variables, or why it cannot.
func (p places) kernelCache() (folder string, err error) {
	if p.getenv("CUDA_CACHE_DISABLE") == "1" {
		return "", errors.New("CUDA_CACHE_DISABLE is 1")
	}
	folder = p.getenv("CUDA_CACHE_PATH")
	if folder == "" {
		home := p.getenv("HOME")
		if home == "" {
			return "", errors.New("HOME is not set; set it, or CUDA_CACHE_PATH to a folder for them")
		}
		folder = filepath.Join(home, ".nv/ComputeCache")
	}
	// The driver makes the folder where it is missing, in the nearest one above
	// it that is there.
	existing := folder
	for parent := filepath.Dir(existing); parent != existing; parent = filepath.Dir(parent) {
		if _, err := os.Stat(existing); err == nil {
			break
		}
		existing = parent
	}
	if err := writable(existing); err != nil {
		return folder, fmt.Errorf("%s cannot be written (%w); set CUDA_CACHE_PATH to a folder for them", folder, err)
	}
	return folder, nil
}
