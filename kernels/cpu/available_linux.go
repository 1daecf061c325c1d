package cpu

import (
	"bytes"
	"math"
	"os"
	"strconv"
)

// available is how many bytes can be used without swapping or meeting the
// limit of a control group, which ends a process without a word. It is
// MaxInt64 where the system does not say.
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
		most, err := strconv.ParseInt(string(bytes.TrimSpace(limit)), 10, 64) // "max" where there is none
		used, errUsed := strconv.ParseInt(string(bytes.TrimSpace(current)), 10, 64)
		if err == nil && errUsed == nil {
			free = min(free, most-used)
		}
	}
	return free
}

// field reads the number after a name in the layout of /proc/meminfo.
func field(text []byte, name string) (int64, bool) {
	_, after, found := bytes.Cut(text, []byte(name))
	words := bytes.Fields(after)
	if !found || len(words) == 0 {
		return 0, false
	}
	n, err := strconv.ParseInt(string(words[0]), 10, 64)
	return n, err == nil
}
