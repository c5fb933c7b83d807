package feed

import "runtime"

// round wakes the streams that have nothing to do, one after the other: each
// that is woken wakes the next before it writes. A thousand streams woken at
// once are a thousand goroutines that are ready to run, and whoever else wants
// the processor, such as the call that revokes the next session, stands behind
// all of them at each of its steps. The lock of the server guards it.
type round struct {
	streams []*stream
	at      int // the place to look at next
	left    int // places that this round has not come to
	walkers int // streams that were woken and have not woken another yet
	woken   int // since others had a turn
}

// turnAfter is how many streams are woken before whoever else is ready has a
// turn. Between streams alone the scheduler gives none for 10 ms.
const turnAfter = 8

func (r *round) add(st *stream) {
	st.place = len(r.streams)
	r.streams = append(r.streams, st)
	if r.left > 0 {
		r.left++
	}
}

// remove takes out a stream, which passes on what it was handed.
func (r *round) remove(st *stream) {
	last := len(r.streams) - 1
	moved := r.streams[last]
	r.streams[st.place], moved.place = moved, st.place
	r.streams[last] = nil
	r.streams = r.streams[:last]
	if r.left > 0 {
		r.left = len(r.streams) // the one that was moved may be in the part behind us
	}
	r.passed(st)
}

// begin starts a round, or lets the one that is under way come to all again.
func (r *round) begin() {
	r.left = len(r.streams)
	for r.walkers < runtime.GOMAXPROCS(0) && r.pass() {
	}
}

// pass wakes the next stream that waits. One that does not wait looks for news
// by itself before it does. It reports whether there was one.
func (r *round) pass() bool {
	for r.left > 0 {
		r.left--
		if r.at >= len(r.streams) {
			r.at = 0
		}
		st := r.streams[r.at]
		r.at++
		if !st.idle {
			continue
		}
		st.idle, st.walker = false, true
		r.walkers++
		st.wake <- struct{}{} // there is room: it was idle
		return true
	}
	return false
}

// passed is for a stream that was woken: it wakes the next.
func (r *round) passed(st *stream) {
	if !st.walker {
		return
	}
	st.walker = false
	r.walkers--
	r.pass()
}

// turn reports whether it is time to let others have the processor.
func (r *round) turn() bool {
	r.woken++
	if r.woken < turnAfter {
		return false
	}
	r.woken = 0
	return true
}

// woken passes the round on from a stream that it has come to.
func (s *Server) woken(st *stream) {
	s.mu.Lock()
	others := s.round.turn()
	if !others {
		s.round.passed(st)
	}
	s.mu.Unlock()
	if others {
		runtime.Gosched()
		s.mu.Lock()
		s.round.passed(st)
		s.mu.Unlock()
	}
}
