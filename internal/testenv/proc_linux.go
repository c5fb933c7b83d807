package testenv

import "syscall"

// daemonAttr starts a server outside of the terminal's process group, so that
// Ctrl-C reaches it through Stop only, and ends it (SIGINT: PostgreSQL's fast
// shutdown) should this process be killed before it can.
func daemonAttr(account *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: account, Setpgid: true, Pdeathsig: syscall.SIGINT}
}
