package main

import (
	"encoding/json"
	"net/http"
	"sync"

	"github.com/counterfoil/counterfoil/verify"
)

// cloakroom is the service: it keeps things for users. All it knows of them is
// what their access token says.
type cloakroom struct {
	mu     sync.Mutex
	things map[string][]string // by subject
}

const mostThings = 20

func newCloakroom() *cloakroom { return &cloakroom{things: make(map[string][]string)} }

func (c *cloakroom) list(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer(w, r)
}

func (c *cloakroom) leave(w http.ResponseWriter, r *http.Request) {
	var in struct{ Thing string }
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<10)).Decode(&in)
	if err != nil || in.Thing == "" || len(in.Thing) > 240 {
		http.Error(w, `{"code": "invalid_request", "field": "thing"}`, http.StatusBadRequest)
		return
	}
	user := subject(r)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.things[user] = append(c.things[user], in.Thing)
	if n := len(c.things[user]); n > mostThings {
		c.things[user] = c.things[user][n-mostThings:] // the room is small
	}
	c.answer(w, r)
}

// collect gives everything back. Its route has seen to it that the user proved
// a moment ago who they are.
func (c *cloakroom) collect(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.things, subject(r))
	c.answer(w, r)
}

// answer is called with the lock held.
func (c *cloakroom) answer(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "private, no-store")
	// An error here is the client's connection: there is nobody to tell.
	_ = json.NewEncoder(w).Encode(map[string][]string{"things": append([]string{}, c.things[subject(r)]...)})
}

func subject(r *http.Request) string {
	claims, _ := verify.FromContext(r.Context()) // there, since the route let the request through
	return claims.Subject
}
