package feed

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/counterfoil/counterfoil/internal/problem"
	"github.com/counterfoil/counterfoil/internal/strictjson"
)

const (
	// sendBuffer is small, or the system would take so much for a reader
	// that stands still that it would never be noticed.
	sendBuffer = 32 << 10
	// catchUp is how long a reader that has seen more than this node waits
	// for it to have read that too.
	catchUp = 250 * time.Millisecond
)

// ServeHTTP sends the feed until the reader goes, is too slow, or the server
// is closed. The header Last-Event-ID says where to go on. The caller has
// checked who asks.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	asked := time.Now()
	pos, err := ParsePosition(r.Header.Get("Last-Event-ID"))
	if err != nil {
		pos = Position{} // whatever it was, a snapshot is right
	}
	if !s.await(r.Context(), pos) {
		w.Header().Set("Retry-After", "1")
		problem.Write(w, problem.Problem{Status: http.StatusServiceUnavailable, Code: "unavailable",
			Detail: "This node has not read as far as the reader has. Try another, or again."})
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // a proxy that collects makes the feed look old
	if r.Method == http.MethodHead {
		return
	}
	st := &stream{asked: asked, wake: make(chan struct{}, 1)}
	if !s.enter(st) {
		h.Del("Content-Type")
		h.Set("Retry-After", "1")
		problem.Write(w, problem.Problem{Status: http.StatusServiceUnavailable, Code: "unavailable", Detail: "This node is being stopped."})
		return
	}
	defer func() { s.leave(st, err) }()
	out, err := s.newSink(w, r)
	if err != nil {
		return // the reader has gone
	}
	// An error is the end of the stream by the reader or by its slowness: nobody
	// is left to be told.
	err = s.send(r.Context(), st, out, pos)
	out.close(err == nil)
}

// await waits a moment for this node to come to where the reader is, and
// reports whether it has.
func (s *Server) await(ctx context.Context, pos Position) bool {
	deadline := time.Now().Add(catchUp)
	for {
		s.mu.Lock()
		known := s.pos
		s.mu.Unlock()
		switch {
		case known.Timeline == 0:
		case pos.Timeline != known.Timeline || pos.Seq <= known.Seq:
			return true
		}
		if !time.Now().Before(deadline) {
			return false
		}
		s.cfg.Wake()
		pause := time.NewTimer(pollEvery)
		select {
		case <-ctx.Done():
			pause.Stop()
			return false
		case <-s.closed:
			pause.Stop()
			return false
		case <-pause.C:
		}
	}
}

func (s *Server) enter(st *stream) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return false
	}
	s.running.Add(1)
	if s.round.add(st); len(s.round.streams) == 1 {
		stop := make(chan struct{})
		s.stop = stop
		s.running.Go(func() { s.tick(stop) })
	}
	return true
}

func (s *Server) leave(st *stream, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.cut++
	}
	if s.round.remove(st); len(s.round.streams) == 0 {
		close(s.stop)
	}
	s.running.Done()
}

// stream is one reader's place.
type stream struct {
	next  uint64 // the frame that goes out next
	snap  []frame
	asked time.Time // when the request came; zero once that was told
	beat  uint64    // the last beat that went out
	piece []frame   // what goes out now

	// Under the lock of the server.
	place  int  // among the streams of the round
	idle   bool // it waits for wake
	walker bool // the round has come to it, and goes on from it
	ending bool // it is to end
	wake   chan struct{}
}

func (s *Server) send(ctx context.Context, st *stream, out sink, pos Position) error {
	s.mu.Lock()
	next, ok := s.resume(pos)
	s.mu.Unlock()
	if ok {
		st.next = next
	} else {
		s.startOver(st)
	}
	for {
		if s.ending(st) {
			return nil
		}
		if gone := s.fill(st); gone {
			s.startOver(st)
			continue
		}
		if len(st.piece) > 0 {
			if err := out.write(st.piece); err != nil {
				return err
			}
			continue
		}
		select {
		case <-st.wake:
			s.woken(st)
		case <-ctx.Done():
			return ctx.Err()
		case <-s.closed:
			return nil
		}
	}
}

func (s *Server) ending(st *stream) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return st.ending
}

// startOver gives the stream a snapshot and what comes after it.
func (s *Server) startOver(st *stream) {
	snap := s.takeSnapshot()
	st.snap, st.next = snap.frames, snap.next
}

// fill takes the next piece for a stream: frames in their order, and behind
// the last of them a beat, if there is one that did not go out. With nothing to
// send the stream is idle from then on. gone says that frames are missing.
func (s *Server) fill(st *stream) (gone bool) {
	clear(st.piece)
	st.piece = st.piece[:0]
	size := 0
	take := func(f frame) bool {
		if len(st.piece) > 0 && size+len(f) > maxPiece {
			return false
		}
		st.piece = append(st.piece, f)
		size += len(f)
		return true
	}
	for len(st.snap) > 0 {
		if !take(st.snap[0]) {
			return false
		}
		st.snap = st.snap[1:]
	}
	var keys int64
	if !st.asked.IsZero() {
		keys = s.cfg.KeyVersion()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !st.asked.IsZero() {
		s.flush(time.Now()) // the first beat vouches for what is pending
	}
	if st.next < s.first {
		// What was taken of the snapshot is good and goes out first.
		return len(st.piece) == 0
	}
	for st.next < s.end() {
		if !take(s.frames[st.next-s.first].frame) {
			return false
		}
		st.next++
	}
	switch {
	case !st.asked.IsZero():
		// Of the moment at which the request came, since that is what the
		// reader's clock is tied to.
		st.piece = append(st.piece, s.makeBeat(st.asked, keys))
		st.asked, st.beat = time.Time{}, s.beats
	case st.beat != s.beats:
		st.piece = append(st.piece, s.beat)
		st.beat = s.beats
	}
	st.idle = len(st.piece) == 0
	return false
}

// ServeClock answers with this node's name and the clock of its beats.
func (s *Server) ServeClock(w http.ResponseWriter, _ *http.Request) {
	body := append([]byte(nil), `{"node":`...)
	body = strictjson.AppendString(body, s.cfg.Node)
	body = append(body, `,"now":`...)
	body = appendSeconds(body, s.seconds(time.Now()))
	body = append(body, "}\n"...)
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	// A write fails when the reader has gone.
	_, _ = w.Write(body)
}

// sink is where a stream goes. An error ends it.
type sink interface {
	write([]frame) error
	close(meant bool)
}

// newSink takes the connection over where it can, which is HTTP/1.1: that
// frees what net/http holds for it, makes room for a small send buffer, and
// does not keep the server from shutting down.
func (s *Server) newSink(w http.ResponseWriter, r *http.Request) (sink, error) {
	control := http.NewResponseController(w)
	if r.ProtoMajor == 1 && r.ProtoMinor == 1 {
		conn, _, err := control.Hijack()
		if err == nil {
			return takeOver(conn, w.Header(), s.cfg.WriteTimeout)
		}
		if !errors.Is(err, http.ErrNotSupported) {
			return nil, err
		}
	}
	w.WriteHeader(http.StatusOK)
	return &answer{w, control, s.cfg.WriteTimeout}, nil
}

// hijacked writes to the connection itself.
type hijacked struct {
	conn    net.Conn
	timeout time.Duration
}

func takeOver(conn net.Conn, header http.Header, timeout time.Duration) (sink, error) {
	limitSendBuffer(conn)
	out := &hijacked{conn, timeout}
	head := pieces.Get().(*bytes.Buffer)
	defer pieces.Put(head)
	head.Reset()
	header = header.Clone()
	header.Set("Transfer-Encoding", "chunked")
	header.Set("Connection", "close")
	header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	head.WriteString("HTTP/1.1 200 OK\r\n")
	if err := header.Write(head); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	head.WriteString("\r\n")
	// Deadlines of the server's are not for a stream; ours come with each write.
	err := conn.SetDeadline(time.Time{})
	if err == nil {
		err = out.put(head.Bytes())
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return out, nil
}

// limitSendBuffer looks for the socket below TLS and whatever else wraps it.
func limitSendBuffer(conn net.Conn) {
	for conn != nil {
		if c, ok := conn.(interface{ SetWriteBuffer(int) error }); ok {
			// Without it a stalled reader is noticed later, no more.
			_ = c.SetWriteBuffer(sendBuffer)
			return
		}
		c, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return
		}
		conn = c.NetConn()
	}
}

func (h *hijacked) put(data []byte) error {
	if err := h.conn.SetWriteDeadline(time.Now().Add(h.timeout)); err != nil {
		return err
	}
	_, err := h.conn.Write(data)
	return err
}

func (h *hijacked) write(piece []frame) error {
	if len(piece) == 1 {
		return h.put(piece[0])
	}
	all := pieces.Get().(*bytes.Buffer)
	defer pieces.Put(all)
	all.Reset()
	for _, f := range piece {
		all.Write(f)
	}
	return h.put(all.Bytes())
}

func (h *hijacked) close(meant bool) {
	if meant {
		// The last chunk. If it cannot be written, the connection ends without.
		_ = h.put([]byte("0\r\n\r\n"))
	}
	_ = h.conn.Close()
}

// answer writes through net/http: HTTP/2, HTTP/1.0, and writers that do not
// give the connection away.
type answer struct {
	w       http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration
}

func (a *answer) write(piece []frame) error {
	err := a.control.SetWriteDeadline(time.Now().Add(a.timeout))
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	for _, f := range piece {
		if _, err := a.w.Write(f.event()); err != nil {
			return err
		}
	}
	return a.control.Flush()
}

func (*answer) close(bool) {}

// pieces are buffers in which a piece is put together: one write, one packet,
// one TLS record.
var pieces = sync.Pool{New: func() any { return new(bytes.Buffer) }}
