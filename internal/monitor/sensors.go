// Package monitor measures a run and shows it: the sensors of its GPUs, the counts of its models, devices and stages,
// a dashboard for terminals, and the values that logs and reports contain.
//
// The package must not know what a run computes. Its caller reports events to a Run and decides where text goes.
package monitor

import (
	"encoding/json"
	"math"
	"time"

	"seqembed/kernels/cuda/driver"
)

// Value is a measured number. NaN means that it is unknown; JSON has null for it, and texts have a dash.
type Value float64

// unknown stands for a number that was not measured.
var unknown = Value(math.NaN())

func (v Value) known() bool { return !math.IsNaN(float64(v)) }

// MarshalJSON returns the number, rounded to three decimals, or null if it is unknown or infinite.
func (v Value) MarshalJSON() ([]byte, error) {
	if !v.known() || math.IsInf(float64(v), 0) {
		return []byte("null"), nil
	}
	return json.Marshal(math.Round(1000*float64(v)) / 1000)
}

// Sample is one reading of the sensors of a GPU. A value that the GPU does not report is unknown.
type Sample struct {
	Utilization Value // percent of NVML's last sampling period in which a kernel ran
	MemoryUsed  Value // bytes, of all processes
	MemoryTotal Value // bytes
	Temperature Value // degrees Celsius
	Power       Value // watts
	Clock       Value // clock of the multiprocessors in MHz
}

// noSample is a sample without any value.
var noSample = Sample{unknown, unknown, unknown, unknown, unknown, unknown}

// sampleEvery is the time between two samples of a GPU.
const sampleEvery = time.Second

// finder finds the GPU with the address pci on the PCI bus and returns a function that reads its sensors.
type finder func(pci string) (read func() Sample, err error)

// WatchSensors reads the sensors of GPUs once a second with NVML, NVIDIA's library for sensors, and passes the samples
// to report, until stop is called. The GPUs are identified by their addresses on the PCI bus, because CUDA and NVML
// number them in different orders. Without NVML, and for a GPU that NVML does not know, there are no samples.
//
// Each GPU has a goroutine of its own, and another goroutine loads NVML. A call of NVML that never returns keeps its
// goroutine until the process ends, and delays no other goroutine: neither WatchSensors nor stop waits for NVML.
func WatchSensors(addresses []string, report func(pci string, s Sample)) (stop func()) {
	return watchSensors(addresses, func() (finder, error) { return loadNVML(driver.System()) }, sampleEvery, report)
}

func watchSensors(addresses []string, load func() (finder, error), every time.Duration, report func(pci string, s Sample)) (stop func()) {
	stopped := make(chan struct{})
	go func() {
		find, err := load()
		if err != nil {
			return
		}
		for _, pci := range addresses {
			go func() {
				if read, err := find(pci); err == nil {
					sampleUntil(stopped, every, func() { report(pci, read()) })
				}
			}()
		}
	}()
	return func() { close(stopped) }
}

// sampleUntil calls sample, and calls it again after each period of the given length, until stopped is closed.
func sampleUntil(stopped <-chan struct{}, every time.Duration, sample func()) {
	ticks := time.NewTicker(every)
	defer ticks.Stop()
	for {
		sample()
		select {
		case <-ticks.C:
		case <-stopped:
			return
		}
	}
}
