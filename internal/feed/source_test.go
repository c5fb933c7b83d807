package feed

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/internal/revoked"
)

// source is a log with a server that follows it.
type source struct {
	*Server
	table *revoked.Table
	keys  int64

	mu   sync.Mutex
	last int64
	ids  map[string]bool // all that was ever published
}

const timeline = 7

func newSource(t testing.TB, change func(*ServerConfig)) *source {
	src := &source{table: revoked.NewTable(nil), keys: 1, ids: map[string]bool{}}
	cfg := ServerConfig{
		Node: "n1", Retain: time.Minute, Snapshot: src.table.Snapshot,
		KeyVersion: func() int64 { return src.keys }, Wake: func() {},
	}
	if change != nil {
		change(&cfg)
	}
	src.Server = NewServer(cfg)
	t.Cleanup(src.Close)
	return src
}

func entry(seq int64) revoked.Entry {
	return revoked.Entry{Kind: revoked.Session, ID: fmt.Sprintf("session-%08d", seq), Position: seq, Until: time.Now().Add(time.Hour)}
}

// put publishes entries as a follower does: first in force, then told.
func (s *source) put(resolved int64, seqs ...int64) {
	entries := make([]revoked.Entry, len(seqs))
	s.mu.Lock()
	for i, seq := range seqs {
		entries[i] = entry(seq)
		s.ids[entries[i].ID] = true
		s.last = max(s.last, seq)
	}
	s.mu.Unlock()
	read := time.Now()
	s.table.Apply(entries...)
	s.Publish(Position{timeline, resolved}, entries, read)
}

// add publishes the next n entries in order.
func (s *source) add(n int64) {
	s.mu.Lock()
	last := s.last
	s.mu.Unlock()
	seqs := make([]int64, n)
	for i := range seqs {
		seqs[i] = last + 1 + int64(i)
	}
	s.put(last+n, seqs...)
}

func (s *source) published() map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := make(map[string]bool, len(s.ids))
	for id := range s.ids {
		ids[id] = true
	}
	return ids
}

// serve puts the server behind real HTTP.
func (s *source) serve(t testing.TB) string {
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	t.Cleanup(s.Close)
	return server.URL
}

// follower is a reader that keeps what it was told.
type follower struct {
	t         testing.TB
	url       string
	pos       string
	body      io.Closer
	reader    *Reader
	ids       map[string]bool
	snapshots int
	frames    int
	beat      Beat
	asked     time.Time
	first     Beat
}

func newFollower(t testing.TB, url string) *follower {
	return &follower{t: t, url: url, ids: map[string]bool{}}
}

// plain makes each request over a connection of its own.
var plain = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

func (f *follower) ask() *http.Response {
	f.t.Helper()
	req, err := http.NewRequestWithContext(f.t.Context(), http.MethodGet, f.url, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	if f.pos != "" {
		req.Header.Set("Last-Event-ID", f.pos)
	}
	f.asked = time.Now()
	resp, err := plain.Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	return resp
}

func (f *follower) connect() {
	f.t.Helper()
	resp := f.ask()
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		f.t.Fatalf("answered %s, %v", resp.Status, resp.Header)
	}
	f.body, f.reader, f.first = resp.Body, NewReader(resp.Body), Beat{}
}

func (f *follower) cut() { f.body.Close() }

// next takes one frame; false at the end of the stream.
func (f *follower) next() (Frame, bool) {
	f.t.Helper()
	got, err := f.reader.Next()
	if err != nil {
		return got, false
	}
	f.frames++
	switch got.Kind {
	case Heartbeat:
		if f.first == (Beat{}) {
			f.first = got.Beat
		}
		f.beat = got.Beat
	case Snapshot:
		if got.HasPos {
			f.snapshots++
		}
	}
	for _, e := range got.Entries {
		f.ids[e.ID] = true
	}
	if got.HasPos {
		f.pos = got.Pos.String()
	}
	return got, true
}

// until takes frames until ok says so.
func (f *follower) until(ok func(Frame) bool) {
	f.t.Helper()
	for {
		got, more := f.next()
		if !more {
			f.t.Fatal("the stream has ended")
		}
		if ok(got) {
			return
		}
	}
}

func (f *follower) untilHas(id string) {
	f.t.Helper()
	for !f.ids[id] {
		if _, more := f.next(); !more {
			f.t.Fatalf("the stream has ended before %s", id)
		}
	}
}

func aBeat(f Frame) bool { return f.Kind == Heartbeat }

func (f *follower) wantAll(want map[string]bool) {
	f.t.Helper()
	missing := 0
	for id := range want {
		if !f.ids[id] {
			missing++
		}
	}
	if missing > 0 {
		f.t.Errorf("%d of %d entries were lost", missing, len(want))
	}
}

// pipe is a ResponseWriter for simulated time: no network, nothing to take over.
type pipe struct {
	net.Conn
	header http.Header
	status int
}

func (p *pipe) Header() http.Header    { return p.header }
func (p *pipe) WriteHeader(status int) { p.status = status }
func (p *pipe) FlushError() error      { return nil }

// simulate connects to the server without a network. end tells the server
// that the reader has gone.
func (s *source) simulate(t testing.TB, pos string) (f *follower, end func()) {
	here, there := net.Pipe()
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	if pos != "" {
		r.Header.Set("Last-Event-ID", pos)
	}
	f = newFollower(t, "")
	f.asked, f.reader, f.body = time.Now(), NewReader(here), here
	var served sync.WaitGroup
	served.Go(func() {
		s.ServeHTTP(&pipe{Conn: there, header: http.Header{}}, r)
		there.Close()
	})
	return f, func() {
		here.Close()
		served.Wait()
	}
}
