package demo

import (
	"context"
	"sync"
)

// Switch turns the authority off and on. Its methods are safe for concurrent
// use.
type Switch struct {
	start   func(ctx context.Context) (*Process, error)
	address string

	mu      sync.Mutex
	process *Process // nil or ended: off
}

// NewSwitch makes a switch of an authority that runs at address; start starts
// it there again.
func NewSwitch(running *Process, address string, start func(ctx context.Context) (*Process, error)) *Switch {
	return &Switch{start: start, address: address, process: running}
}

// Address is where the authority listens, host and port, while it runs.
func (s *Switch) Address() string { return s.address }

// PID is the process id of the authority, 0 while it is off.
func (s *Switch) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.on() {
		return 0
	}
	return s.process.PID()
}

func (s *Switch) on() bool {
	if s.process == nil {
		return false
	}
	select {
	case <-s.process.Done():
		return false
	default:
		return true
	}
}

// Turn starts or stops the authority, and returns when it serves or is gone.
func (s *Switch) Turn(ctx context.Context, on bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case on == s.on():
		return nil
	case !on:
		s.process.Stop()
		return nil
	}
	p, err := s.start(ctx)
	if err == nil {
		s.process = p
	}
	return err
}
