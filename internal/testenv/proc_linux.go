package testenv

import "syscall"

// OwnGroup starts a process in a process group of its own, so that Ctrl-C in
// the terminal does not reach it, as the given account (nil: ours), and sends
// it last should this process be killed before it can end it.
func OwnGroup(account *syscall.Credential, last syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: account, Setpgid: true, Pdeathsig: last}
}
