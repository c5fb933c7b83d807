package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/verify"
)

const (
	// watchBeat is how often a stream says that it is still there: proxies cut
	// connections on which nothing is said, and a reader that has gone is found.
	watchBeat = 15 * time.Second
	// watchWrite is how long a reader may take what is written.
	watchWrite = 10 * time.Second
)

func watchRoute() route {
	return handle(route{
		method: http.MethodGet, path: "/session/watch", name: "watchSession", credential: userSession,
		summary: "Learn at once when this session ends, as server-sent events",
		detail: "hello comes first, with sid, server_time and the subject's epoch: an access token of a lower one is stale. " +
			"stale: the user's rights have changed, refresh now. ended, with code, sid, reason and ended_at as in a problem: the session has ended, and the stream ends. " +
			"A stream that ends without it says nothing about the session: open another, after some seconds. A comment comes every 15 s. " +
			"A session has ten streams at most, a user a hundred (429); where the server has no room, 503.",
		faults: []fault{faultOrigin, faultRate},
	}, watchSession)
}

var faultOrigin = fault{http.StatusForbidden, verify.CodeInvalidRequest}

// watchStream is the stream of one page; without a watch it is an answer to HEAD.
type watchStream struct{ watch *counterfoil.SessionWatch }

func watchSession(c *call, _ *struct{}) (watchStream, error) {
	// A stream is held for as long as whoever opened it likes. Pages that may
	// not read it get none.
	posted := *c.r
	posted.Method = http.MethodPost
	if err := c.checkOrigin(&posted); err != nil {
		return watchStream{}, err
	}
	s, err := c.session()
	if err != nil || c.r.Method == http.MethodHead {
		return watchStream{}, err
	}
	watch, err := c.auth.WatchSession(c.ctx(), s)
	return watchStream{watch}, err
}

func (s watchStream) serve(c *call) {
	h := c.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "private, no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would keep small events back
	if s.watch == nil {
		c.w.WriteHeader(c.route.status)
		return
	}
	defer s.watch.Stop()
	ctx, cancel := context.WithCancel(c.ctx())
	defer cancel()
	defer context.AfterFunc(c.serverEnd(), cancel)()
	out := &events{c.w, http.NewResponseController(c.w)}
	defer out.close()
	sid := s.watch.SessionID()
	// Where many streams end at once, the browsers do not come back at once.
	err := out.write(fmt.Sprintf("retry: %d\n", 1000+rand.N(4000)) + event("hello", object{
		"sid": sid, "server_time": c.auth.Now().Unix(), "epoch": s.watch.Epoch(),
	}))
	for err == nil {
		beat, stop := context.WithTimeout(ctx, watchBeat)
		told := s.watch.Wait(beat)
		stop()
		var ended *counterfoil.EndedError
		switch {
		case ctx.Err() != nil:
			return
		case told == nil:
			err = out.write(event("stale", object{}))
		case errors.As(told, &ended):
			_ = out.write(event("ended", endOf(sid, ended))) // a reader that has gone knows
			return
		case errors.Is(told, context.DeadlineExceeded):
			err = out.write(": beat\n\n")
		default:
			return
		}
	}
}

// endOf says of the end what the problem of the next call would.
func endOf(sid string, ended *counterfoil.EndedError) object {
	data := object{"sid": sid, "code": verify.CodeSessionUnknown}
	var e *verify.Error
	if errors.As(ended.Err, &e) {
		data["code"] = e.Code
	}
	if ended.Reason != "" {
		data["reason"] = ended.Reason
	}
	if !ended.EndedAt.IsZero() {
		data["ended_at"] = ended.EndedAt.Unix()
	}
	return data
}

func event(name string, data object) string {
	text, err := json.Marshal(data)
	if err != nil {
		panic("httpapi: an event: " + err.Error())
	}
	return "event: " + name + "\ndata: " + string(text) + "\n\n"
}

// events writes to a reader that may be slow: who does not take what is
// written within watchWrite is cut off.
type events struct {
	w    http.ResponseWriter
	conn *http.ResponseController
}

// write lifts the server's limit on answers, which is for short ones. Not every
// writer knows deadlines; those of net/http do.
func (e *events) write(text string) error {
	_ = e.conn.SetWriteDeadline(time.Now().Add(watchWrite))
	if _, err := io.WriteString(e.w, text); err != nil {
		return err
	}
	if err := e.conn.Flush(); err != nil {
		return err
	}
	// HTTP/2 ends a stream at its deadline, whether or not anything is written.
	_ = e.conn.SetWriteDeadline(time.Time{})
	return nil
}

// close bounds what net/http writes to end the answer.
func (e *events) close() { _ = e.conn.SetWriteDeadline(time.Now().Add(watchWrite)) }

// serverEnds are the servers that streams are on: one that is shut down waits
// for its requests, and these would not end by themselves.
type serverEnds struct {
	mu sync.Mutex
	by map[*http.Server]context.Context
}

// serverEnd returns a context that ends when the server of the call is shut down.
func (c *call) serverEnd() context.Context {
	server, ok := c.ctx().Value(http.ServerContextKey).(*http.Server)
	if !ok {
		return context.Background()
	}
	s := c.ends
	s.mu.Lock()
	defer s.mu.Unlock()
	end := s.by[server]
	if end == nil {
		var cancel context.CancelFunc
		end, cancel = context.WithCancel(context.Background())
		server.RegisterOnShutdown(cancel)
		if s.by == nil {
			s.by = make(map[*http.Server]context.Context)
		}
		s.by[server] = end
	}
	return end
}
