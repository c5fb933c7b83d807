//go:build unix && !linux

package testenv

import "syscall"

// OwnGroup starts a process in a process group of its own, so that Ctrl-C in
// the terminal does not reach it, as the given account (nil: ours). Only
// Linux can send it a last signal.
func OwnGroup(account *syscall.Credential, _ syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: account, Setpgid: true}
}
