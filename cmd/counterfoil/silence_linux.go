package main

import (
	"errors"
	"syscall"
	"time"

	system "golang.org/x/sys/unix"
)

// limitSilence has the system give up a connection on which what was sent has
// not been acknowledged for so long (TCP_USER_TIMEOUT, RFC 5482), in place of
// some fifteen minutes.
func limitSilence(conn syscall.RawConn, d time.Duration) error {
	var err error
	control := conn.Control(func(fd uintptr) {
		err = system.SetsockoptInt(int(fd), system.IPPROTO_TCP, system.TCP_USER_TIMEOUT, int(d.Milliseconds()))
	})
	return errors.Join(control, err)
}
