package main

import (
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// schedulerVariables hold the number of processors that the scheduler of a cluster has given a task: Slurm, PBS and
// Grid Engine. Where a scheduler does not bind the task to these processors, nothing else tells it.
var schedulerVariables = []string{"SLURM_CPUS_PER_TASK", "PBS_NCPUS", "NSLOTS"}

// scheduledThreads returns the number of threads to which a scheduler restricts the program. It is 0 if that is not
// fewer than Go has found, which respects GOMAXPROCS, affinity and the processor quota of a control group.
func scheduledThreads(environ []string) int {
	threads := 0
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		n, err := strconv.Atoi(value)
		if err == nil && slices.Contains(schedulerVariables, name) && 0 < n && n < runtime.GOMAXPROCS(0) {
			if threads == 0 || n < threads {
				threads = n
			}
		}
	}
	return threads
}
