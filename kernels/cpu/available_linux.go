package cpu

import (
	"bytes"
	"math"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// memoryLimits computes the memory that can still be used under each limit, and keeps the smallest amount.
type memoryLimits struct {
	root  string // "/", except in tests
	bytes int64
	by    string
}

// Available returns the number of bytes that can be used without swapping, and the name of the limit that determines
// it. The limits are the free memory of the machine, the limits of the process's control groups, and the limit of its
// address space. If a process exceeds such a limit, the system kills it without a message, or Go's runtime ends it.
// Available returns MaxInt64 if the system does not show its limits.
func Available() (bytes int64, by string) {
	l := memoryLimits{"/", math.MaxInt64, "all memory"}
	l.machine()
	l.controlGroups()
	l.addressSpace()
	return l.bytes, l.by
}

// add takes a limit into account. The parameter left is the number of bytes that can still be used under the limit, and
// by is the name of the limit.
func (l *memoryLimits) add(left int64, by string) {
	if left < l.bytes {
		l.bytes, l.by = max(left, 0), by
	}
}

// machine takes the free memory of the machine into account.
func (l *memoryLimits) machine() {
	if kb, ok := l.field("proc/meminfo", "MemAvailable:"); ok {
		l.add(kb*1024, "the free memory of the machine")
	}
}

// controlGroup names the files of one version of Linux control groups (cgroups).
type controlGroup struct {
	mounts           []string
	limit, used      string
	inactive, active string // names in memory.stat of page cache, which the system drops when memory runs short
}

var (
	controlGroup1 = controlGroup{[]string{"sys/fs/cgroup/memory"}, "memory.limit_in_bytes", "memory.usage_in_bytes",
		"total_inactive_file ", "total_active_file "}
	controlGroup2 = controlGroup{[]string{"sys/fs/cgroup", "sys/fs/cgroup/unified"}, "memory.max", "memory.current",
		"\ninactive_file ", "\nactive_file "}
)

// controlGroups takes into account the memory limit of the control group that the process is in, and the limits of all
// groups above it, because all these limits apply at once. In a container, the path of the group may name groups that
// are not mounted; controlGroups skips those groups.
func (l *memoryLimits) controlGroups() {
	list, _ := os.ReadFile(path.Join(l.root, "proc/self/cgroup")) // if there are no control groups, list is empty
	for entry := range strings.Lines(string(list)) {
		parts := strings.SplitN(strings.TrimSpace(entry), ":", 3)
		if len(parts) < 3 {
			continue
		}
		version := controlGroup1
		if parts[1] == "" {
			version = controlGroup2
		} else if !strings.Contains(","+parts[1]+",", ",memory,") {
			continue
		}
		for group := path.Join("/", parts[2]); ; group = path.Dir(group) {
			for _, mount := range version.mounts {
				l.controlGroup(version, path.Join(mount, group))
			}
			if group == "/" {
				break
			}
		}
	}
}

// controlGroup takes the limit of one group into account, if the group has a limit.
func (l *memoryLimits) controlGroup(v controlGroup, group string) {
	limit, limited := l.field(path.Join(group, v.limit), "") // "max" means no limit
	used, known := l.field(path.Join(group, v.used), "")
	if !limited || !known {
		return
	}
	inactive, _ := l.field(path.Join(group, "memory.stat"), v.inactive)
	active, _ := l.field(path.Join(group, "memory.stat"), v.active)
	l.add(limit-used+min(used, inactive+active), "the control group /"+group)
}

// runtimeShare is the address space in bytes that is left to Go's runtime and its threads, beyond what they have
// already reserved.
const runtimeShare = 256 << 20

// addressSpace takes the limit of the address space (ulimit -v) into account. Reserved memory counts, even if it is not
// used.
func (l *memoryLimits) addressSpace() {
	var limit unix.Rlimit
	pages, ok := l.field("proc/self/statm", "")
	if err := unix.Getrlimit(unix.RLIMIT_AS, &limit); err == nil && ok && limit.Cur < math.MaxInt64 {
		l.add(int64(limit.Cur)-pages*int64(os.Getpagesize())-runtimeShare, "the address space (ulimit -v)")
	}
}

// field returns the number that follows name in a file or, if name is "", the first number.
func (l *memoryLimits) field(file, name string) (int64, bool) {
	text, err := os.ReadFile(path.Join(l.root, file))
	_, after, found := bytes.Cut(text, []byte(name))
	words := bytes.Fields(after)
	if err != nil || !found || len(words) == 0 {
		return 0, false
	}
	n, err := strconv.ParseInt(string(words[0]), 10, 64)
	return n, err == nil
}
