//go:build linux

package stage

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// CPUTime returns the processor time that each of the processes has used so
// far. Those that have ended are left out.
func CPUTime(pids ...int) (map[int]time.Duration, error) {
	used := make(map[int]time.Duration, len(pids))
	for _, pid := range pids {
		// The clock of another process, as clock_getcpuclockid(3) makes it.
		var t unix.Timespec
		err := unix.ClockGettime(int32(^pid)<<3|2, &t)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("processor time of %d: %w", pid, err)
		}
		used[pid] = time.Duration(t.Nano())
	}
	return used, nil
}

// Children returns a process and those that it started.
func Children(parent int) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	family := []int{parent}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + entry.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		// "pid (name) state parent …"; a name may hold parentheses.
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(fields) > 1 && fields[1] == strconv.Itoa(parent) {
			family = append(family, pid)
		}
	}
	return family, nil
}

// Memory returns what a process has in memory now, and the most it ever had,
// in bytes.
func Memory(pid int) (resident, peak int64, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(status)) {
		fields := strings.Fields(line)
		if len(fields) != 3 || fields[2] != "kB" {
			continue
		}
		n, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			return 0, 0, err
		}
		switch fields[0] {
		case "VmRSS:":
			resident = n << 10
		case "VmHWM:":
			peak = n << 10
		}
	}
	if resident == 0 || peak == 0 {
		return 0, 0, fmt.Errorf("process %d does not tell its memory", pid)
	}
	return resident, peak, nil
}

// Busy returns the processor time that all programs of the machine have used,
// and what the machine was denied by its host. Interrupts do not count.
func Busy() (time.Duration, error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := bytes.Cut(stat, []byte("\n"))
	fields := strings.Fields(string(line)) // cpu user nice system idle iowait irq softirq steal …
	if len(fields) < 9 {
		return 0, fmt.Errorf("/proc/stat begins with %q", line)
	}
	var ticks int64
	for _, i := range []int{1, 2, 3, 8} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}
