//go:build linux

package stage

import (
	"fmt"
	"os/exec"
	"time"
)

// SlowSync returns the words before a command whose fsync and fdatasync shall
// each take so much longer: virtual disks often answer from a cache, where a
// real one needs a millisecond. It is strace that holds them up, which stops
// the program at these two calls only. 0 returns nothing.
func SlowSync(delay time.Duration) ([]string, error) {
	if delay == 0 {
		return nil, nil
	}
	strace, err := exec.LookPath("strace")
	if err != nil {
		return nil, fmt.Errorf("slow syncs need strace (apt-get install strace): %w", err)
	}
	// -D: the command keeps the process id that its parent knows.
	return []string{strace, "-D", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=fsync,fdatasync",
		"-e", fmt.Sprintf("inject=fsync,fdatasync:delay_exit=%d", delay.Microseconds())}, nil
}
