package simulation

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/counterfoil/counterfoil/internal/feed"
	"github.com/counterfoil/counterfoil/verify"
)

// checker is what a service uses a verifier for.
type checker interface {
	Check(ctx context.Context, token string, rules ...verify.Rule) (*verify.Claims, error)
}

// service is a process with a verifier that follows the feed.
type service struct {
	w     *world
	name  string
	skew  time.Duration
	cache string
	turn  turn // held while the process is started or stopped

	mu      sync.Mutex
	v       *verify.Verifier // nil while it is down
	check   checker
	began   time.Time
	run     int
	dials   uint64
	stale   bool              // JWKS answers are old ones
	old     map[string][]byte // the first answers
	cursor  string            // what becomes of Last-Event-ID: "", "drop", "garble"
	settled *http.Transport
	streams *http.Transport
}

func (s *service) now() time.Time { return time.Now().Add(s.skew) }

func (s *service) start() {
	s.mu.Lock()
	s.run++
	s.old = make(map[string][]byte)
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		s.mu.Lock()
		s.dials++
		n := s.w.pick(s.name, s.dials)
		s.mu.Unlock()
		return s.w.net.dial(ctx, s.name, n)
	}
	s.settled = &http.Transport{DialContext: dial, DisableCompression: true, DisableKeepAlives: true} // each request is balanced anew
	s.streams = &http.Transport{DialContext: dial, DisableCompression: true, DisableKeepAlives: true}
	cfg := verify.Config{
		Issuer: issuer, Audience: audience, Authority: "http://authority.internal", APIKey: s.w.apiKey,
		HTTPClient: &http.Client{Transport: s}, Logger: s.w.log, CacheTokens: 64, Cache: s.cache,
	}
	if s.skew != 0 {
		cfg.Clock = s.now
	}
	s.mu.Unlock()
	// Started meanwhile: New waits for keys.
	v, err := verify.New(context.Background(), cfg)
	if err != nil {
		panic("simulation: " + err.Error())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.v, s.check, s.began = v, s.w.plantedVerifier(v), time.Now()
}

// get is the running verifier, or nil.
func (s *service) get() (*verify.Verifier, checker, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.v, s.check, s.run
}

// stop ends the process; a crash leaves the cache file as it is.
func (s *service) stop(crash bool) {
	defer s.turn.take()()
	s.mu.Lock()
	v := s.v
	s.v, s.check = nil, nil
	settled, streams := s.settled, s.streams
	s.mu.Unlock()
	if v == nil {
		return
	}
	file, err := os.ReadFile(s.cache)
	_ = v.Close()
	settled.CloseIdleConnections()
	streams.CloseIdleConnections()
	if crash {
		_ = os.Remove(s.cache)
		if err == nil {
			_ = os.WriteFile(s.cache, file, 0o600)
		}
	}
}

func (s *service) set(change func(*service)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

// RoundTrip is the way of the verifier's requests, with what can be wrong with
// their answers.
func (s *service) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	stale, cursor, settled, streams := s.stale, s.cursor, s.settled, s.streams
	s.mu.Unlock()
	switch {
	case strings.HasSuffix(r.URL.Path, "/v1/revocations"):
		r = r.Clone(r.Context())
		s.spoil(r, cursor)
		res, err := streams.RoundTrip(r)
		if err == nil && res.StatusCode == http.StatusOK {
			if change := plantedFrames[s.w.planted]; change != nil {
				res.Body = reframed(res.Body, change)
			}
		}
		return res, err
	case strings.HasSuffix(r.URL.Path, "/jwks.json"):
		res, err := settled.RoundTrip(r)
		if err != nil || res.StatusCode != http.StatusOK {
			return res, err
		}
		return s.remember(res, stale)
	}
	return settled.RoundTrip(r)
}

// spoil changes the place from which the feed is to go on.
func (s *service) spoil(r *http.Request, cursor string) {
	id := r.Header.Get("Last-Event-ID")
	pos, err := feed.ParsePosition(id)
	switch {
	case err != nil:
	case s.w.planted == "cursor ahead":
		pos.Seq++
		r.Header.Set("Last-Event-ID", pos.String())
	case cursor == "drop":
		r.Header.Del("Last-Event-ID")
	case cursor == "garble":
		r.Header.Set("Last-Event-ID", "no position")
	case cursor == "timeline":
		pos.Timeline += 1000
		r.Header.Set("Last-Event-ID", pos.String())
	case cursor == "ahead":
		pos.Seq += 1 << 40
		r.Header.Set("Last-Event-ID", pos.String())
	}
}

// remember keeps the first key set that came, and answers with it later.
func (s *service) remember(res *http.Response, stale bool) (*http.Response, error) {
	body, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.old["jwks"] == nil {
		s.old["jwks"] = body
	}
	if stale {
		if s.w.planted == "key set goes backwards" {
			body = withVersion(s.old["jwks"], version(body))
		} else {
			body = s.old["jwks"]
		}
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	res.ContentLength = int64(len(body))
	res.Header.Del("Content-Length")
	return res, nil
}

// reframed reads a feed, changes its frames and writes it again.
func reframed(body io.ReadCloser, change func(*feed.Frame) bool) io.ReadCloser {
	reader, out := feed.NewReader(body), &pump{src: body}
	out.fill = func() ([]byte, error) {
		for {
			f, err := reader.Next()
			if err != nil {
				return nil, err
			}
			if !change(&f) {
				continue
			}
			switch f.Kind {
			case feed.Snapshot:
				return feed.AppendSnapshot(nil, f.Pos, f.Entries), nil
			case feed.Live:
				return feed.AppendLive(nil, f.Pos, f.Entries), nil
			case feed.Heartbeat:
				return feed.AppendBeat(nil, f.Beat), nil
			}
		}
	}
	return out
}

type pump struct {
	src  io.Closer
	fill func() ([]byte, error)
	left []byte
}

func (p *pump) Read(b []byte) (int, error) {
	for len(p.left) == 0 {
		var err error
		if p.left, err = p.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(b, p.left)
	p.left = p.left[n:]
	return n, nil
}

func (p *pump) Close() error { return p.src.Close() }

func cacheFile(dir, name string) string { return filepath.Join(dir, name+".cache") }

var errDown = errors.New("the service is down")
