//go:build linux && cgo && gonvml

package monitor

import (
	"fmt"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"seqembed/kernels/cuda/driver"
)

// loadNVML loads NVML, NVIDIA's library for the sensors of GPUs, with NVIDIA's Go package go-nvml. It loads the file
// that p.FindNVML finds.
func loadNVML(p driver.Places) (finder, error) {
	_, attempts, err := p.FindNVML()
	if err != nil {
		return nil, err
	}
	library := nvml.New(nvml.WithLibraryPath(attempts[len(attempts)-1].Path))
	if code := library.Init(); code != nvml.SUCCESS {
		return nil, fmt.Errorf("nvmlInit: %w", code)
	}
	return func(pci string) (func() Sample, error) {
		device, code := library.DeviceGetHandleByPciBusId(pci)
		if code != nvml.SUCCESS {
			return nil, fmt.Errorf("nvmlDeviceGetHandleByPciBusId %s: %w", pci, code)
		}
		return func() Sample { return readNVML(device) }, nil
	}, nil
}

func readNVML(device nvml.Device) Sample {
	s := noSample
	if percent, code := device.GetUtilizationRates(); code == nvml.SUCCESS {
		s.Utilization = Value(percent.Gpu)
	}
	if bytes, code := device.GetMemoryInfo(); code == nvml.SUCCESS {
		s.MemoryUsed, s.MemoryTotal = Value(bytes.Used), Value(bytes.Total)
	}
	if celsius, code := device.GetTemperature(nvml.TEMPERATURE_GPU); code == nvml.SUCCESS {
		s.Temperature = Value(celsius)
	}
	if milliwatts, code := device.GetPowerUsage(); code == nvml.SUCCESS {
		s.Power = Value(milliwatts) / 1000
	}
	if megahertz, code := device.GetClockInfo(nvml.CLOCK_SM); code == nvml.SUCCESS {
		s.Clock = Value(megahertz)
	}
	return s
}
