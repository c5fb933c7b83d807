package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/counterfoil/counterfoil/verify"
)

// room is one chat room: everybody hears everybody.
type room struct {
	mu      sync.Mutex
	streams map[string]*stream // by id
}

// stream is one open connection.
type stream struct {
	ctx      context.Context // of verify.Watch
	messages chan message
}

type message struct {
	From string `json:"from"`
	Text string `json:"text"`
}

func newRoom() *room { return &room{streams: make(map[string]*stream)} }

func (c *room) routes(v *verify.Verifier) http.Handler {
	signedIn := v.Require()
	mux := http.NewServeMux()
	mux.Handle("GET /stream", signedIn(http.HandlerFunc(c.listen)))
	mux.Handle("PUT /stream/{id}", signedIn(http.HandlerFunc(c.renew)))
	mux.Handle("POST /messages", signedIn(http.HandlerFunc(c.say)))
	return mux
}

// listen sends what is said from now on. The stream lives as long as the
// session: when the user signs out, on this device or all of them, it ends,
// though the request that opened it was fine and none comes after it.
func (c *room) listen(w http.ResponseWriter, r *http.Request) {
	ctx, stop := verify.Watch(r.Context())
	defer stop()
	s := &stream{ctx: ctx, messages: make(chan message, 16)}
	id := rand.Text()
	c.mu.Lock()
	c.streams[id] = s
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.streams, id)
	}()

	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	if send(w, "open", map[string]string{"id": id}) != nil {
		return
	}
	for {
		select {
		case m := <-s.messages:
			if send(w, "message", m) != nil {
				return
			}
		case <-ctx.Done():
			// Why it ended tells the client what to do: refresh and come back, or
			// sign in again. It finds out which by refreshing.
			code := "bye"
			var refused *verify.Error
			if errors.As(context.Cause(ctx), &refused) {
				code = refused.Code
			}
			_ = send(w, "end", map[string]string{"code": code}) // whoever has left misses nothing
			return
		}
	}
}

// renew takes the client's fresh access token for a stream that is open: a
// token lives for a minute, the stream as long as the client shows new ones.
func (c *room) renew(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	s := c.streams[r.PathValue("id")]
	c.mu.Unlock()
	if s == nil {
		http.Error(w, "There is no such stream.", http.StatusNotFound)
		return
	}
	_, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if err := verify.Renew(s.ctx, strings.TrimSpace(token)); err != nil {
		verify.WriteError(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (c *room) say(w http.ResponseWriter, r *http.Request) {
	claims, _ := verify.FromContext(r.Context())
	m := message{From: claims.Subject}
	var said struct{ Text string }
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<10)).Decode(&said); err != nil {
		http.Error(w, `Send {"text": "…"} of at most 4096 bytes.`, http.StatusBadRequest)
		return
	}
	m.Text = said.Text
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.streams {
		select {
		case s.messages <- m:
		default: // who does not listen misses it
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

// send writes one server-sent event.
func send(w http.ResponseWriter, event string, data any) error {
	text, err := json.Marshal(data)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "event: %s\ndata: %s\n\n", event, text); err != nil {
		return err
	}
	return http.NewResponseController(w).Flush()
}
