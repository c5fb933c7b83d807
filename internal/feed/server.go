package feed

import (
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/counterfoil/counterfoil/internal/revoked"
)

// ServerConfig configures a [Server]. The functions are safe for concurrent use.
type ServerConfig struct {
	// Node names this process: another run of it has another name.
	Node string
	// BeatEvery is the time between beats; default 100 ms.
	BeatEvery time.Duration
	// WriteTimeout is how long one piece of at most 32 kB may take; default
	// 2 s. A slower reader is cut; it comes back and goes on where it was.
	WriteTimeout time.Duration
	// Retain is how long an entry is kept for readers that come back;
	// RetainBytes bounds the memory for that, default 8 MiB. Readers from
	// before get a snapshot.
	Retain      time.Duration
	RetainBytes int
	// KeyVersion is the version of the key set that this node publishes.
	KeyVersion func() int64
	// Level is how many relays lie between the authority and this node, itself
	// included. Nil: none, this is the authority's.
	Level func() int64
	// Snapshot returns all that is in force, at least what was published.
	Snapshot func() []revoked.Entry
	// Wake asks for the next Publish. It is called while somebody follows
	// and the last read of the store is older than two polls.
	Wake func()
}

const (
	defaultBeatEvery    = 100 * time.Millisecond
	defaultWriteTimeout = 2 * time.Second
	defaultRetainBytes  = 8 << 20
	pollEvery           = 10 * time.Millisecond
	minFlushEvery       = 5 * time.Millisecond
	flushCost           = 10 * time.Microsecond // of a core, for each stream
	snapshotFor         = time.Second           // how long one is handed out again
)

// Server sends the feed to any number of readers. What is published becomes
// frames, made once, in one list; each stream is a goroutine with its place
// in that list. Its methods are safe for concurrent use.
type Server struct {
	cfg  ServerConfig
	zero time.Time // the clock of beats counts from here

	mu      sync.Mutex
	pos     Position
	readAt  time.Time
	pending []revoked.Entry // published, not yet in a frame
	told    Position        // the position of the last frame
	frames  []kept
	first   uint64 // number of frames[0]
	size    int    // bytes in frames
	floor   int64  // entries at or below may be in no frame any more
	beat    frame
	beats   uint64
	beaten  time.Time // when the last was made
	round   round     // of the streams, when they have something to send
	flushed time.Time
	due     *time.Timer   // of the next flush; nil when none is
	cut     uint64        // streams that were too slow
	stop    chan struct{} // ends the ticking that goes on while there are streams
	closed  chan struct{}
	over    bool
	running sync.WaitGroup

	snapMu sync.Mutex
	snap   *snapshot
}

// kept is a frame in the list.
type kept struct {
	frame frame
	max   int64 // the highest position of an entry in this or an earlier frame
	at    time.Time
}

// NewServer returns a server that refuses readers until the first Publish.
func NewServer(cfg ServerConfig) *Server {
	if cfg.BeatEvery <= 0 {
		cfg.BeatEvery = defaultBeatEvery
	}
	if cfg.WriteTimeout <= 0 {
		cfg.WriteTimeout = defaultWriteTimeout
	}
	if cfg.RetainBytes <= 0 {
		cfg.RetainBytes = defaultRetainBytes
	}
	return &Server{cfg: cfg, zero: time.Now(), closed: make(chan struct{})}
}

// Publish takes what one read of the store has found: all entries that are
// new, and the position at or below which nothing can come any more. Entries
// may come late and more than once. readAt is the time before a read that
// found everything began; zero when there is more to come. A timeline, the
// first too, begins with everything that the store retains of it. The caller
// has put the entries in force for its own verifiers.
func (s *Server) Publish(pos Position, entries []revoked.Entry, readAt time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return
	}
	now := time.Now()
	if pos.Timeline != s.pos.Timeline {
		s.begin(pos)
	}
	s.pos.Seq = max(s.pos.Seq, pos.Seq)
	s.pending = append(s.pending, entries...)
	if readAt.After(s.readAt) {
		s.readAt = readAt
	}
	s.forget(now)
	if len(s.pending) == 0 || s.due != nil {
		return
	}
	wait := s.flushed.Add(s.flushEvery()).Sub(now)
	if len(s.round.streams) == 0 || wait <= 0 {
		s.flush(now)
		return
	}
	s.due = time.AfterFunc(wait, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.flush(time.Now())
	})
}

// begin starts a timeline: no place in the list means anything there, so every
// stream goes on with a snapshot.
func (s *Server) begin(pos Position) {
	s.pos, s.floor = pos, 0
	s.pending = nil // in the snapshot, as all that was ever published
	s.first += uint64(len(s.frames)) + 1
	s.frames, s.size = nil, 0
	s.told = Position{}
	s.round.begin()
}

func (s *Server) flushEvery() time.Duration {
	cores := runtime.GOMAXPROCS(0)
	return max(minFlushEvery, time.Duration(len(s.round.streams))*flushCost/time.Duration(cores))
}

// flush makes frames of what is pending, and of a position that has moved by
// itself. The lock is held.
func (s *Server) flush(now time.Time) {
	if s.due != nil {
		s.due.Stop()
		s.due = nil
	}
	if s.pos.Timeline == 0 || len(s.pending) == 0 && s.told == s.pos {
		return
	}
	highest := s.highest()
	for _, e := range s.pending {
		highest = max(highest, e.Position)
	}
	for _, f := range cut(Live, s.pos, highest, s.pending) {
		// One batch is one thing to come back behind: each of its frames
		// counts as holding the highest of its entries.
		s.frames = append(s.frames, kept{f, highest, now})
		s.size += len(f)
	}
	s.pending = s.pending[:0]
	if cap(s.pending) > 4096 {
		s.pending = nil
	}
	s.told, s.flushed = s.pos, now
	s.forget(now)
	s.round.begin()
}

// highest is the highest position of an entry that was in a frame.
func (s *Server) highest() int64 {
	if n := len(s.frames); n > 0 {
		return s.frames[n-1].max
	}
	return s.floor
}

// forget lets go of old frames.
func (s *Server) forget(now time.Time) {
	n := 0
	for n < len(s.frames) && (s.size > s.cfg.RetainBytes || now.Sub(s.frames[n].at) > s.cfg.Retain) {
		s.size -= len(s.frames[n].frame)
		s.floor = max(s.floor, s.frames[n].max)
		s.frames[n] = kept{}
		n++
	}
	s.frames = s.frames[n:]
	s.first += uint64(n)
}

// end is the number of the frame that will be next.
func (s *Server) end() uint64 { return s.first + uint64(len(s.frames)) }

// resume finds the first frame that a reader who has come to pos needs. ok is
// false when frames that it may need are gone.
func (s *Server) resume(pos Position) (next uint64, ok bool) {
	if pos.Timeline != s.pos.Timeline || pos.Seq < s.floor {
		return 0, false
	}
	i, _ := slices.BinarySearchFunc(s.frames, pos.Seq, func(k kept, seq int64) int {
		if k.max <= seq {
			return -1
		}
		return 1
	})
	return s.first + uint64(i), true
}

// tick sends beats while there are streams.
func (s *Server) tick(stop chan struct{}) {
	every := min(pollEvery, s.cfg.BeatEvery)
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	next := time.Now().Add(s.cfg.BeatEvery)
	for {
		select {
		case <-stop:
			s.forgetSnapshot(0)
			return
		case <-ticker.C:
		}
		now := time.Now()
		age, beaten := s.ages(now)
		if age > 2*pollEvery {
			s.cfg.Wake()
		}
		if last := beaten.Add(s.cfg.BeatEvery); last.After(next) {
			next = last // another than the ticker made that beat
		}
		if now.Before(next) {
			continue
		}
		if next = next.Add(s.cfg.BeatEvery); next.Before(now) {
			next = now.Add(s.cfg.BeatEvery) // after a pause of the process
		}
		s.sendBeat()
		s.forgetSnapshot(snapshotFor)
	}
}

// ages are how long ago the last read began, and when a beat was last asked
// for by another than the ticker.
func (s *Server) ages(now time.Time) (read time.Duration, beaten time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return elapsed(now, s.readAt), s.beaten
}

// elapsed is the time since then. The monotonic clock stands still while a
// machine is suspended, so the greater of two differences counts.
func elapsed(now, then time.Time) time.Duration {
	return max(now.Sub(then), now.Round(0).Sub(then.Round(0)))
}

func (s *Server) sendBeat() {
	keys := s.cfg.KeyVersion()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.makeBeats(time.Now(), keys)
}

// makeBeats has a beat sent to all. The lock is held.
func (s *Server) makeBeats(now time.Time, keys int64) {
	// What a beat vouches for goes out before it.
	s.flush(now)
	s.beat = s.makeBeat(now, keys)
	s.beats++
	s.round.begin()
}

// makeBeat vouches for everything up to readAt. The age is rounded up.
func (s *Server) makeBeat(now time.Time, keys int64) frame {
	age := max(0, elapsed(now, s.readAt)+time.Millisecond-1)
	b := Beat{AgeMS: age.Milliseconds(), Now: s.seconds(now), Keys: keys, Node: s.cfg.Node}
	if s.cfg.Level != nil {
		b.Level = s.cfg.Level()
	}
	return newFrame(func(dst []byte) []byte { return AppendBeat(dst, b) })
}

// seconds is the clock of beats: the time of day at which the server was made
// plus what the monotonic clock has counted since.
func (s *Server) seconds(now time.Time) float64 {
	return float64(s.zero.UnixMicro())/1e6 + now.Sub(s.zero).Seconds()
}

// Close ends all streams and waits for them.
func (s *Server) Close() {
	s.mu.Lock()
	if !s.over {
		s.over = true
		close(s.closed)
		if s.due != nil {
			s.due.Stop()
			s.due = nil
		}
	}
	s.mu.Unlock()
	s.running.Wait()
}

// snapshot is all that was in force when it was made.
type snapshot struct {
	frames []frame
	next   uint64 // the frame that goes out after it
	made   time.Time
}

// takeSnapshot makes a snapshot, or hands out one that was just made: a
// thousand readers that come at once cost one.
func (s *Server) takeSnapshot() *snapshot {
	s.snapMu.Lock()
	defer s.snapMu.Unlock()
	s.mu.Lock()
	now := time.Now()
	s.flush(now)
	pos, high, next, first := s.pos, s.highest(), s.end(), s.first
	s.mu.Unlock()
	if s.snap != nil && s.snap.next >= first && now.Sub(s.snap.made) < snapshotFor {
		return s.snap
	}
	s.snap = &snapshot{frames: cut(Snapshot, pos, high, s.cfg.Snapshot()), next: next, made: now}
	return s.snap
}

// forgetSnapshot frees a snapshot of that age.
func (s *Server) forgetSnapshot(age time.Duration) {
	s.snapMu.Lock()
	defer s.snapMu.Unlock()
	if s.snap != nil && time.Since(s.snap.made) >= age {
		s.snap = nil
	}
}
