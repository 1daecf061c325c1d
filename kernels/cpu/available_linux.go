package cpu

import (
	"bytes"
	"math"
	"os"
	"strconv"
)

// available returns the number of bytes that this process can use without swapping and without exceeding the memory
// limit of its control group. The kernel kills a process over that limit without a message. available returns MaxInt64
// if the system reports nothing.
func available() int64 {
	free := int64(math.MaxInt64)
	if meminfo, err := os.ReadFile("/proc/meminfo"); err == nil {
		if kb, ok := field(meminfo, "MemAvailable:"); ok {
			free = kb * 1024
		}
	}
	limit, errLimit := os.ReadFile("/sys/fs/cgroup/memory.max")
	current, errCurrent := os.ReadFile("/sys/fs/cgroup/memory.current")
	if errLimit == nil && errCurrent == nil {
		most, err := strconv.ParseInt(string(bytes.TrimSpace(limit)), 10, 64) // fails for "max", which means no limit
		used, errUsed := strconv.ParseInt(string(bytes.TrimSpace(current)), 10, 64)
		if err == nil && errUsed == nil {
			free = min(free, most-used)
		}
	}
	return free
}

// field returns the number after name in text in the format of /proc/meminfo.
func field(text []byte, name string) (int64, bool) {
	_, after, found := bytes.Cut(text, []byte(name))
	words := bytes.Fields(after)
	if !found || len(words) == 0 {
		return 0, false
	}
	n, err := strconv.ParseInt(string(words[0]), 10, 64)
	return n, err == nil
}
