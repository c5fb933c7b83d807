package storetest

import (
	"context"
	"crypto/rand"
	"errors"
	mathrand "math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/opaque"
)

// group is a part of the specification.
type group struct {
	name   string
	needs  need
	duties []duty
}

// duty is one thing that every store has to do.
type duty struct {
	name  string
	check func(t *testing.T, e *env)
}

// need says what a group cannot be tested without.
type need int

const (
	nothing need = iota
	users
	transactions
)

var groups = []group{
	{"Sessions", nothing, sessionDuties},
	{"Values", nothing, valueDuties},
	{"Bindings", nothing, bindingDuties},
	{"Ends", nothing, endDuties},
	{"Lists", nothing, listDuties},
	{"Purge", nothing, purgeDuties},
	{"Subjects", nothing, subjectDuties},
	{"Keeps", nothing, keepDuties},
	{"Feed", nothing, feedDuties},
	{"Tail", nothing, tailDuties},
	{"Clock", nothing, clockDuties},
	{"Races", nothing, raceDuties},
	{"Catalog", nothing, catalogDuties},
	{"Transactions", transactions, transactionDuties},
	{"NoTransactions", nothing, noTransactionDuties},
	{"Users", users, userDuties},
	{"Throttle", users, throttleDuties},
	{"Passkeys", users, ceremonyDuties},
}

// clock is the time of one test. It moves only when told to.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// env is one store under test.
type env struct {
	Stores
	t        *testing.T
	ctx      context.Context
	clock    *clock
	sessions counterfoil.SessionStore
	feed     counterfoil.FeedLog
	catalog  counterfoil.Catalog
	random   *mathrand.Rand // for the test's own goroutine
}

func newEnv(t *testing.T, open func(*testing.T, func() time.Time) Stores) *env {
	c := &clock{at: time.Date(2031, 5, 4, 12, 0, 0, 123e6, time.UTC)}
	s := open(t, c.now)
	if s.Rounds == 0 {
		s.Rounds = 40
		if testing.Short() {
			s.Rounds = 10
		}
	}
	if s.Seed == 0 {
		s.Seed = mathrand.Uint64()
	}
	t.Logf("seed %d", s.Seed)
	return &env{
		Stores: s, t: t, ctx: t.Context(), clock: c,
		sessions: s.Store.Sessions(), feed: s.Store.Feed(), catalog: s.Store.Catalog(),
		random: mathrand.New(mathrand.NewPCG(s.Seed, 0)),
	}
}

func (e *env) skipWithout(n need) {
	switch {
	case n == users && e.Users == nil:
		e.t.Skip("the store has no users")
	case n == transactions && e.BeginTx == nil:
		e.t.Skip("the store speaks no SQL")
	}
}

const (
	retain   = 10 * time.Minute
	idle     = time.Hour
	absolute = 24 * time.Hour
)

// session makes a session that starts now and is in no store yet.
func (e *env) session(subject string) counterfoil.Session {
	now := e.clock.now()
	return counterfoil.Session{
		ID: opaque.NewSelector(subject), Subject: subject, ClientID: "default",
		CreatedAt: now, LastActiveAt: now, IdleTimeout: idle, ExpiresAt: now.Add(absolute),
		AuthTime: now, Methods: []string{"pwd"},
		Device:     counterfoil.Device{UserAgent: "Agent/1.0", IP: "192.0.2.7"},
		SecretHash: randomHash(),
	}
}

func (e *env) child(parent counterfoil.Session, subject string) counterfoil.Session {
	s := e.session(subject)
	s.ParentID = parent.ID
	return s
}

func randomHash() (h opaque.Hash) {
	rand.Read(h[:])
	return h
}

func (e *env) insert(s counterfoil.Session) counterfoil.Session {
	e.t.Helper()
	snap, err := e.sessions.Insert(e.ctx, s)
	e.must("Insert", err)
	return snap.Session
}

// start inserts a session of the subject.
func (e *env) start(subject string) counterfoil.Session {
	e.t.Helper()
	return e.insert(e.session(subject))
}

func (e *env) snapshot(id string) counterfoil.Snapshot {
	e.t.Helper()
	snap, err := e.sessions.Snapshot(e.ctx, id)
	e.must("Snapshot", err)
	return snap
}

func (e *env) subject(id string) counterfoil.Subject {
	e.t.Helper()
	sub, err := e.sessions.Subject(e.ctx, id)
	e.must("Subject", err)
	return sub
}

func endRequest(id string) counterfoil.EndRequest {
	return counterfoil.EndRequest{ID: id, End: counterfoil.End{Reason: counterfoil.SignedOut, Actor: "user"}, Retain: retain}
}

func (e *env) end(id string) counterfoil.Ended {
	e.t.Helper()
	ended, err := e.sessions.End(e.ctx, endRequest(id))
	e.must("End", err)
	return ended
}

// signOut is an Advance that ends every session of the subject.
func signOut(subject string) counterfoil.Advance {
	return counterfoil.Advance{
		Subject: subject, SignOut: true, Retain: retain,
		End: counterfoil.End{Reason: counterfoil.PasswordChanged, Actor: "operator"},
	}
}

// others is an Advance that ends every session of the subject but one.
func others(subject, keep string) counterfoil.Advance {
	a := signOut(subject)
	a.Keep = &counterfoil.Keep{ID: keep}
	return a
}

// rightsOnly is an Advance that ends nothing.
func rightsOnly(subject string) counterfoil.Advance {
	return counterfoil.Advance{Subject: subject, Retain: retain}
}

func (e *env) advance(a counterfoil.Advance) counterfoil.Advanced {
	e.t.Helper()
	done, err := e.sessions.Advance(e.ctx, a)
	e.must("Advance", err)
	return done
}

func (e *env) active(id string) bool {
	e.t.Helper()
	snap := e.snapshot(id)
	return snap.Session.Status(snap.Now) == counterfoil.StatusActive
}

func (e *env) wantActive(id, why string) {
	e.t.Helper()
	if s := e.snapshot(id); s.Session.Status(s.Now) != counterfoil.StatusActive {
		e.t.Errorf("session is %s, want active: %s", s.Session.Status(s.Now), why)
	}
}

func (e *env) wantRevoked(id, why string) {
	e.t.Helper()
	if s := e.snapshot(id); s.Session.Status(s.Now) != counterfoil.StatusRevoked {
		e.t.Errorf("session is %s, want revoked: %s", s.Session.Status(s.Now), why)
	}
}

// update changes a session and wants no error.
func (e *env) update(id string, stale bool, fn func(*counterfoil.Session)) (counterfoil.Session, []counterfoil.Revocation) {
	e.t.Helper()
	s, revocations, err := e.sessions.Update(e.ctx, id, retain, func(s *counterfoil.Session) (bool, error) {
		fn(s)
		return stale, nil
	})
	e.must("Update", err)
	return s, revocations
}

func (e *env) head() counterfoil.FeedHead {
	e.t.Helper()
	head, err := e.feed.Head(e.ctx)
	e.must("Feed.Head", err)
	return head
}

// logged reads the whole log in pages.
func (e *env) logged() []counterfoil.Revocation {
	e.t.Helper()
	return e.loggedAfter(0)
}

func (e *env) loggedAfter(after int64) (all []counterfoil.Revocation) {
	e.t.Helper()
	const page = 100
	for {
		got, err := e.feed.Read(e.ctx, after, page)
		e.must("Feed.Read", err)
		all = append(all, got...)
		if len(got) < page {
			return all
		}
		after = got[len(got)-1].Position
	}
}

func (e *env) must(what string, err error) {
	e.t.Helper()
	if err != nil {
		e.t.Fatalf("%s: %v", what, err)
	}
}

func (e *env) wantErr(what string, err, want error) {
	e.t.Helper()
	if !errors.Is(err, want) {
		e.t.Errorf("%s: got error %v, want %v", what, err, want)
	}
}

// parallel runs the functions at once, from a common start but each after a
// little chance delay so that every order comes up, and waits for them. They
// report by t.Error, never by t.Fatal.
func parallel(fns ...func()) {
	var done sync.WaitGroup
	start := make(chan struct{})
	for _, fn := range fns {
		done.Go(func() {
			<-start
			for range mathrand.IntN(30) {
				runtime.Gosched()
			}
			fn()
		})
	}
	close(start)
	done.Wait()
}

// times returns n times fn.
func times(n int, fn func(i int)) []func() {
	fns := make([]func(), n)
	for i := range fns {
		fns[i] = func() { fn(i) }
	}
	return fns
}

// record collects what parallel calls reported.
type record struct {
	mu  sync.Mutex
	all []counterfoil.Revocation
}

func (r *record) add(revocations ...counterfoil.Revocation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, revocations...)
}
