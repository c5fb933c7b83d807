package main

import system "golang.org/x/sys/unix"

// remoteSystem names file systems that are on another machine, or may be.
func remoteSystem(s *system.Statfs_t) string {
	return map[int64]string{
		system.NFS_SUPER_MAGIC: "NFS", system.SMB_SUPER_MAGIC: "SMB", system.CIFS_SUPER_MAGIC: "CIFS", system.SMB2_SUPER_MAGIC: "SMB",
		system.CEPH_SUPER_MAGIC: "CephFS", system.AFS_FS_MAGIC: "AFS", system.V9FS_MAGIC: "9p",
	}[int64(s.Type)]
}
