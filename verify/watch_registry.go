package verify

import (
	"slices"
	"sync"

	"github.com/counterfoil/counterfoil/internal/revoked"
)

// watches are the watches of a verifier that have not ended, found by what may
// end them. The verifier's table of revocations wakes them.
type watches struct {
	listen sync.Once

	mu  sync.Mutex
	all map[*watch]struct{}
	by  map[watchedID][]*watch
}

// watchedID is a session, a subject or a token. Keys and clients have so many
// tokens, and are revoked so seldom, that all watches are looked at.
type watchedID struct {
	kind revoked.Kind
	id   string
}

func idsOf(c *Claims) [3]watchedID {
	return [...]watchedID{{revoked.Session, c.SessionID}, {revoked.Subject, c.Subject}, {revoked.Token, c.ID}}
}

func (s *watches) add(w *watch) {
	s.listen.Do(func() { w.verifier.revocations.Listen(s.heard) })
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all, s.by = make(map[*watch]struct{}), make(map[watchedID][]*watch)
	}
	s.all[w] = struct{}{}
	for _, id := range idsOf(w.claims.Load()) {
		s.by[id] = append(s.by[id], w)
	}
}

// remove is called once for each watch, under its lock.
func (s *watches) remove(w *watch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.all[w]; !ok {
		return
	}
	delete(s.all, w)
	for _, id := range idsOf(w.claims.Load()) {
		s.drop(id, w)
	}
}

// move finds the watch by its new token from now on. The session and the
// subject are the same.
func (s *watches) move(w *watch, from, to *Claims) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(watchedID{revoked.Token, from.ID}, w)
	id := watchedID{revoked.Token, to.ID}
	s.by[id] = append(s.by[id], w)
}

func (s *watches) drop(id watchedID, w *watch) {
	list := s.by[id]
	i := slices.Index(list, w)
	switch {
	case i < 0:
	case len(list) == 1:
		delete(s.by, id)
	default:
		list[i] = list[len(list)-1]
		list[len(list)-1] = nil
		s.by[id] = list[:len(list)-1]
	}
}

func (s *watches) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all)
}

// heard looks at the watches that revocations may have ended.
func (s *watches) heard(entries []revoked.Entry) {
	var woken []*watch
	s.mu.Lock()
	if len(s.all) > 0 {
		for _, e := range entries {
			switch e.Kind {
			case revoked.Session, revoked.Subject, revoked.Token:
				woken = append(woken, s.by[watchedID{e.Kind, e.ID}]...)
			default:
				woken = s.list()
			}
		}
	}
	s.mu.Unlock()
	for _, w := range woken {
		w.look()
	}
}

// lookAll looks at every watch, when timers may not have run.
func (s *watches) lookAll() {
	s.mu.Lock()
	woken := s.list()
	s.mu.Unlock()
	for _, w := range woken {
		w.look()
	}
}

func (s *watches) list() (all []*watch) {
	for w := range s.all {
		all = append(all, w)
	}
	return all
}
