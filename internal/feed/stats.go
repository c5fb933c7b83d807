package feed

import "time"

// LagHeader is the request header in which a verifier that asks for the feed's
// clock reports its staleness in milliseconds: the greatest at which it heard of
// a revocation since it asked last; if it heard of none, the present one.
const LagHeader = "Counterfoil-Lag-Ms"

// Stats is how a server is at one moment.
type Stats struct {
	Position Position
	// Age is the time since the last full read of the store began. It means
	// nothing before the first.
	Age     time.Duration
	Streams int // readers that follow now
	// Cut counts the readers that were cut because they were too slow.
	Cut uint64
}

// Stats returns how the server is now.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{Position: s.pos, Age: time.Since(s.readAt), Streams: len(s.round.streams), Cut: s.cut}
}
