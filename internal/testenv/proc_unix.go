//go:build unix && !linux

package testenv

import "syscall"

// daemonAttr starts a server outside of the terminal's process group, so that
// Ctrl-C reaches it through Stop only.
func daemonAttr(account *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: account, Setpgid: true}
}
