//go:build !(linux && cgo && gonvml)

package monitor

import (
	"fmt"

	"seqembed/kernels/cuda/driver"
)

// loadNVML loads NVML, NVIDIA's library for the sensors of GPUs, without cgo.
func loadNVML(p driver.Places) (finder, error) {
	n, _, err := p.FindNVML()
	if err != nil {
		return nil, err
	}
	if code := n.Init(); code != 0 {
		return nil, fmt.Errorf("nvmlInit: error %d", code)
	}
	return func(pci string) (func() Sample, error) {
		address := append([]byte(pci), 0)
		var device driver.Handle
		if code := n.DeviceByPCI(&address[0], &device); code != 0 {
			return nil, fmt.Errorf("nvmlDeviceGetHandleByPciBusId %s: error %d", pci, code)
		}
		return func() Sample { return readNVML(n, device) }, nil
	}, nil
}

func readNVML(n *driver.NVML, device driver.Handle) Sample {
	s := noSample
	var percent driver.NVMLUtilization
	var bytes driver.NVMLMemory
	var celsius, milliwatts, megahertz uint32
	if n.Utilization(device, &percent) == 0 {
		s.Utilization = Value(percent.GPU)
	}
	if n.Memory(device, &bytes) == 0 {
		s.MemoryUsed, s.MemoryTotal = Value(bytes.Used), Value(bytes.Total)
	}
	if n.Temperature(device, driver.NVMLSensorGPU, &celsius) == 0 {
		s.Temperature = Value(celsius)
	}
	if n.Power(device, &milliwatts) == 0 {
		s.Power = Value(milliwatts) / 1000
	}
	if n.Clock(device, driver.NVMLClockSM, &megahertz) == 0 {
		s.Clock = Value(megahertz)
	}
	return s
}
