package driver

import "errors"

// NVML contains the functions of libnvidia-ml that read the sensors of a GPU. A result other than 0 is an error. The
// functions need no CUDA context and may be called by any thread.
type NVML struct {
	Init func() int32 `c:"nvmlInit_v2"`
	// DeviceByPCI finds a device by its address on the PCI bus, a C string such as "00000000:17:00.0".
	DeviceByPCI func(address *byte, device *Handle) int32                 `c:"nvmlDeviceGetHandleByPciBusId_v2"`
	Utilization func(device Handle, percent *NVMLUtilization) int32       `c:"nvmlDeviceGetUtilizationRates"`
	Memory      func(device Handle, bytes *NVMLMemory) int32              `c:"nvmlDeviceGetMemoryInfo"`
	Temperature func(device Handle, sensor int32, celsius *uint32) int32  `c:"nvmlDeviceGetTemperature"`
	Power       func(device Handle, milliwatts *uint32) int32             `c:"nvmlDeviceGetPowerUsage"`
	Clock       func(device Handle, clock int32, megahertz *uint32) int32 `c:"nvmlDeviceGetClockInfo"`
}

// NVMLUtilization is an nvmlUtilization_t: the percentages of the last sampling period during which a kernel ran, and
// during which the memory was read or written.
type NVMLUtilization struct{ GPU, Memory uint32 }

// NVMLMemory is an nvmlMemory_t, in bytes.
type NVMLMemory struct{ Total, Free, Used uint64 }

// Values of nvml.h, each with its name there.
const (
	NVMLSensorGPU = 0 // NVML_TEMPERATURE_GPU
	NVMLClockSM   = 1 // NVML_CLOCK_SM
)

// FindNVML loads libnvidia-ml, which comes with the driver. If it succeeds, the last attempt is the successful one.
func (p Places) FindNVML() (*NVML, []Attempt, error) {
	library, attempts := p.openFirst(p.driverPaths("libnvidia-ml"))
	if library == 0 {
		return nil, attempts, errors.New(describe(attempts))
	}
	n, err := BindNVML(library)
	return n, attempts, err
}
