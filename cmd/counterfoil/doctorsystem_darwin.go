package main

import system "golang.org/x/sys/unix"

// remoteSystem names file systems that are on another machine.
func remoteSystem(s *system.Statfs_t) string {
	if s.Flags&system.MNT_LOCAL != 0 {
		return ""
	}
	return system.ByteSliceToString(s.Fstypename[:])
}
