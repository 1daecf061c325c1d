package main

import (
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// schedulerVariables are the environment variables of Slurm, PBS and Grid Engine with the number of processors of a
// task. If a scheduler does not bind the task to these processors, nothing but the variable tells their number.
var schedulerVariables = []string{"SLURM_CPUS_PER_TASK", "PBS_NCPUS", "NSLOTS"}

// scheduledThreads returns the number of threads to which a scheduler restricts the program. It returns 0 if no
// scheduler gives a number below the one that Go uses by itself. Go already respects GOMAXPROCS, the affinity of the
// process and the processor quota of a control group.
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
