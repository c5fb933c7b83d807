package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/counterfoil/counterfoil/verify"
)

// BeganHeader tells when the page's server passed a request on to the
// authority, in Unix microseconds. What orders tells of its own time can be
// compared with it: both processes read the clock of one machine.
const BeganHeader = "Demo-Began"

// began stamps the answers of next.
func began(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(BeganHeader, fmt.Sprint(time.Now().UnixMicro()))
		next.ServeHTTP(w, r)
	})
}

// unbounded lifts the server's time limits for an answer that lasts as long as
// an access token.
func unbounded(w http.ResponseWriter) error {
	c := http.NewResponseController(w)
	return errors.Join(c.SetReadDeadline(time.Time{}), c.SetWriteDeadline(time.Time{}))
}

// watchEnd is the only event of a watch.
type watchEnd struct {
	Code string `json:"code"` // why: token_revoked, token_stale or token_expired
	At   int64  `json:"at"`   // when this process had it in force, Unix microseconds
}

// watch is a stream that says nothing, until its access token ends.
func watch(w http.ResponseWriter, r *http.Request) {
	ended, stop := verify.Watch(r.Context())
	defer stop()
	if unbounded(w) != nil {
		return // the connection has gone
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	if http.NewResponseController(w).Flush() != nil {
		return
	}
	<-ended.Done()
	at := time.Now()
	var reason *verify.Error
	if !errors.As(context.Cause(ended), &reason) {
		return // the client has gone
	}
	told, err := json.Marshal(watchEnd{reason.Code, at.UnixMicro()})
	if err != nil {
		return
	}
	// A write fails when the client has gone; there is nobody left to tell.
	_, _ = fmt.Fprintf(w, "event: end\ndata: %s\n\n", told)
}

// feedState is what the service knows of its feed.
type feedState struct {
	Connected bool  `json:"connected"`
	Cut       bool  `json:"cut"`
	AgeMS     int64 `json:"age_ms"` // -1: not known
	Events    int64 `json:"events"`
}

// feedRoutes show the feed and cut it.
func feedRoutes(mux *http.ServeMux, v *verify.Verifier, feed *link) {
	tell := func(w http.ResponseWriter) {
		s := v.Stats()
		state := feedState{Connected: s.Connected, Cut: feed.isCut(), AgeMS: -1, Events: int64(s.Events)}
		if s.FeedAgeKnown {
			state.AgeMS = s.FeedAge.Milliseconds()
		}
		answer(w, http.StatusOK, state)
	}
	mux.HandleFunc("GET /feed", func(w http.ResponseWriter, _ *http.Request) { tell(w) })
	mux.HandleFunc("POST /feed", func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			Cut bool `json:"cut"`
		}
		if !read(w, r, &in) {
			return
		}
		feed.set(in.Cut)
		tell(w)
	})
}

var errCut = errors.New("the feed is cut")

// link is the way to the authority. Cut, it carries everything but the feed.
type link struct {
	next http.RoundTripper

	mu      sync.Mutex
	cut     bool
	streams map[io.Closer]struct{}
}

func newLink(next http.RoundTripper) *link {
	return &link{next: next, streams: make(map[io.Closer]struct{})}
}

func (l *link) isCut() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cut
}

func (l *link) set(cut bool) {
	l.mu.Lock()
	l.cut = cut
	var open []io.Closer
	if cut {
		for s := range l.streams {
			open = append(open, s)
		}
	}
	l.mu.Unlock()
	for _, s := range open {
		// Closing fails where the stream has ended already.
		_ = s.Close()
	}
}

// RoundTrip implements [http.RoundTripper].
func (l *link) RoundTrip(r *http.Request) (*http.Response, error) {
	if !strings.HasPrefix(r.URL.Path, "/v1/revocations") {
		return l.next.RoundTrip(r)
	}
	if l.isCut() {
		return nil, errCut
	}
	res, err := l.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		return nil, errors.Join(errCut, res.Body.Close())
	}
	stream := &linked{ReadCloser: res.Body, link: l}
	l.streams[stream] = struct{}{}
	res.Body = stream
	return res, nil
}

// linked is the body of an answer that a cut ends.
type linked struct {
	io.ReadCloser
	link *link
}

// Read implements [io.Reader]. What comes after the cut is lost, though closing
// lets a read that is under way end with it.
func (s *linked) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if s.link.isCut() {
		return 0, errCut
	}
	return n, err
}

// Close implements [io.Closer].
func (s *linked) Close() error {
	s.link.mu.Lock()
	delete(s.link.streams, s)
	s.link.mu.Unlock()
	return s.ReadCloser.Close()
}
