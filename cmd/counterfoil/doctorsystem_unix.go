//go:build linux || darwin

package main

import (
	"fmt"

	system "golang.org/x/sys/unix"
)

func diskOf(folder string) (disk, error) {
	var s system.Statfs_t
	if err := system.Statfs(folder, &s); err != nil {
		return disk{}, err
	}
	return disk{free: int64(s.Bavail) * int64(s.Bsize), network: remoteSystem(&s)}, nil
}

// checkOpenFiles holds the limit of open files against --max-connections.
func checkOpenFiles(connections int) []finding {
	var limit system.Rlimit
	if err := system.Getrlimit(system.RLIMIT_NOFILE, &limit); err != nil {
		return nil
	}
	return judgeOpenFiles(connections, limit.Max)
}

// spareFiles are those that are no connections of clients.
const spareFiles = 256

func judgeOpenFiles(connections int, limit uint64) []finding {
	if limit >= uint64(connections)+spareFiles {
		return []finding{ok("open files", "enough for --max-connections %d", connections)}
	}
	return []finding{warn("open files", fmt.Sprintf("this user may open %d files, and --max-connections is %d: the connections after that fail instead of waiting", limit, connections),
		fmt.Sprintf("LimitNOFILE=%d in the systemd unit; ulimit -n in a shell; or --max-connections %d", connections+spareFiles, max(1, int(min(limit, 1<<20))-spareFiles)))}
}
