package cuda

import (
	"errors"
	"fmt"
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
	CublasErr     error     // why it was not found
}

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

// String is the report in lines of text.
func (r Report) String() string {
	var text strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&text, format+"\n", args...) }
	if r.DriverVersion > 0 {
		line("driver: supports CUDA %s", cudaVersion(r.DriverVersion))
	}
	for _, a := range r.DriverSearch {
		line("  %s", a)
	}
	if r.Err != nil {
		line("no device: %v", r.Err)
	}
	for _, d := range r.Devices {
		if d.Err != nil {
			line("device %s: cannot be used: %v", d, d.Err)
		} else {
			line("device %s, %s free", d, gigabytes(d.FreeMemory))
		}
	}
	if r.CublasVersion != "" {
		line("cuBLASLt: %s", r.CublasVersion)
	} else if errors.Is(r.CublasErr, errNoCublas) {
		line("cuBLASLt: not found; the program's own matrix products serve")
	}
	for _, a := range r.CublasSearch {
		line("  %s", a)
	}
	return text.String()
}
