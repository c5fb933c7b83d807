//go:build !linux

package main

import (
	"syscall"
	"time"
)

// limitSilence does nothing: keep-alive notices on an idle connection, and
// time limits on statements notice on one that is used.
func limitSilence(syscall.RawConn, time.Duration) error { return nil }
