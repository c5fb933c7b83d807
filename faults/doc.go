// Package faults holds tests that break what Counterfoil runs on: real
// processes on loopback are killed, paused, cut off from one another, run out
// of disk, or get a wrong clock, under a load of sign-ins, refreshes and
// revocations. An oracle that remembers every acknowledged call says whether
// one was lost, and every outage is timed. What they measured is in
// docs/faults.md.
package faults
