package memstore

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
	"github.com/counterfoil/counterfoil/storetest"
)

// breakEnv lets the test binary, run again by itself, test the broken stores.
const breakEnv = "COUNTERFOIL_TEST_BROKEN_STORES"

// TestStoretestFindsBrokenStores plants a bug in the store and wants the
// specification to name the duty that is broken.
func TestStoretestFindsBrokenStores(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestBrokenStores$", "-test.v")
	cmd.Env = append(os.Environ(), breakEnv+"=1")
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatal("no broken store failed")
	}
	var failed []string
	for line := range strings.Lines(string(out)) {
		if _, name, ok := strings.Cut(line, "--- FAIL: TestBrokenStores/"); ok {
			failed = append(failed, strings.ReplaceAll(name, "_", " "))
		}
	}
	for _, b := range bugs {
		var found []string
		for _, name := range failed {
			if duty, ok := strings.CutPrefix(name, b.name+"/"); ok && strings.Contains(duty, "/") {
				found = append(found, strings.TrimSpace(duty))
			}
		}
		t.Run(b.name, func(t *testing.T) {
			for _, duty := range found {
				if strings.HasPrefix(duty, b.breaks) {
					return
				}
			}
			t.Errorf("want a failure of %q, got %q", b.breaks, found)
		})
	}
	t.Run("the unbroken store", func(t *testing.T) {
		for _, name := range failed {
			if strings.HasPrefix(name, "none") {
				t.Errorf("the store without a bug fails: %s", name)
			}
		}
	})
	if t.Failed() && !strings.Contains(string(out), "--- FAIL: TestBrokenStores (") {
		t.Logf("the run of the broken stores did not come to its end:\n%s", out[max(0, len(out)-4000):])
	}
}

// TestBrokenStores fails: it is for TestStoretestFindsBrokenStores to run.
func TestBrokenStores(t *testing.T) {
	if os.Getenv(breakEnv) == "" {
		t.Skip("run by TestStoretestFindsBrokenStores")
	}
	for _, b := range append([]bug{{name: "none", plant: func(*broken) {}}}, bugs...) {
		t.Run(b.name, func(t *testing.T) {
			storetest.Run(t, func(_ *testing.T, clock func() time.Time) storetest.Stores {
				s := New(Clock(clock))
				w := &broken{Store: s}
				b.plant(w)
				rounds := 3
				if strings.Contains(b.breaks, "Races") || strings.Contains(b.breaks, "while") || b.name == "none" {
					rounds = 60
				}
				return storetest.Stores{Store: w, Users: brokenUsers{s.Users(), w}, Rounds: rounds}
			})
		})
	}
}

// broken is a store of which some methods are replaced.
type broken struct {
	*Store
	snapshot   func(id string) (counterfoil.Snapshot, error)
	insert     func(counterfoil.Session) (counterfoil.Snapshot, error)
	update     func(id string, fn func(*counterfoil.Session) (bool, error)) (counterfoil.Session, []counterfoil.Revocation, error)
	end        func(counterfoil.EndRequest) (counterfoil.Ended, error)
	advance    func(counterfoil.Advance) (counterfoil.Advanced, error)
	subject    func(id string) (counterfoil.Subject, error)
	list       func(counterfoil.ListQuery) ([]counterfoil.Session, string, error)
	touch      func([]counterfoil.Touch) error
	purge      func(time.Time, int) (int, error)
	head       func() (counterfoil.FeedHead, error)
	prune      func(time.Time, int) (int, error)
	next       func(*counterfoil.FeedBatch) // alters what a tail gives
	after      func(int64) int64            // alters where a tail begins
	updateKeys func(func(*counterfoil.KeyRing) error) (counterfoil.KeyRing, []counterfoil.Revocation, error)
	create     func(directory.User) error
	readUser   func(byEmail bool, key string) (directory.User, error)
	updateUser func(id string, fn func(*directory.User) (*counterfoil.Advance, error)) (directory.User, *counterfoil.Advanced, error)
	deleteUser func(id string, a counterfoil.Advance) (counterfoil.Advanced, error)
	throttle   func(keys []string, fn func([]directory.Counter) error) error
}

func (w *broken) Sessions() counterfoil.SessionStore { return brokenSessions{sessions{w.Store}, w} }
func (w *broken) Feed() counterfoil.FeedLog          { return brokenFeed{feed{w.Store}, w} }
func (w *broken) Catalog() counterfoil.Catalog       { return brokenCatalog{catalog{w.Store}, w} }

type (
	brokenSessions struct {
		sessions
		w *broken
	}
	brokenFeed struct {
		feed
		w *broken
	}
	brokenCatalog struct {
		catalog
		w *broken
	}
	brokenUsers struct {
		directory.Store
		w *broken
	}
)

func (b brokenSessions) Snapshot(ctx context.Context, id string) (counterfoil.Snapshot, error) {
	if b.w.snapshot != nil {
		return b.w.snapshot(id)
	}
	return b.sessions.Snapshot(ctx, id)
}

func (b brokenSessions) Insert(ctx context.Context, s counterfoil.Session) (counterfoil.Snapshot, error) {
	if b.w.insert != nil {
		return b.w.insert(s)
	}
	return b.sessions.Insert(ctx, s)
}

func (b brokenSessions) Update(ctx context.Context, id string, retain time.Duration, fn func(*counterfoil.Session) (bool, error)) (counterfoil.Session, []counterfoil.Revocation, error) {
	if b.w.update != nil {
		return b.w.update(id, fn)
	}
	return b.sessions.Update(ctx, id, retain, fn)
}

func (b brokenSessions) End(ctx context.Context, r counterfoil.EndRequest) (counterfoil.Ended, error) {
	if b.w.end != nil {
		return b.w.end(r)
	}
	return b.sessions.End(ctx, r)
}

func (b brokenSessions) Advance(ctx context.Context, a counterfoil.Advance) (counterfoil.Advanced, error) {
	if b.w.advance != nil {
		return b.w.advance(a)
	}
	return b.sessions.Advance(ctx, a)
}

func (b brokenSessions) Subject(ctx context.Context, id string) (counterfoil.Subject, error) {
	if b.w.subject != nil {
		return b.w.subject(id)
	}
	return b.sessions.Subject(ctx, id)
}

func (b brokenSessions) List(ctx context.Context, q counterfoil.ListQuery) ([]counterfoil.Session, string, error) {
	if b.w.list != nil {
		return b.w.list(q)
	}
	return b.sessions.List(ctx, q)
}

func (b brokenSessions) Touch(ctx context.Context, touches []counterfoil.Touch) error {
	if b.w.touch != nil {
		return b.w.touch(touches)
	}
	return b.sessions.Touch(ctx, touches)
}

func (b brokenSessions) Purge(ctx context.Context, before time.Time, limit int) (int, error) {
	if b.w.purge != nil {
		return b.w.purge(before, limit)
	}
	return b.sessions.Purge(ctx, before, limit)
}

func (b brokenFeed) Head(ctx context.Context) (counterfoil.FeedHead, error) {
	if b.w.head != nil {
		return b.w.head()
	}
	return b.feed.Head(ctx)
}

func (b brokenFeed) Tail(ctx context.Context, after int64) (counterfoil.Tail, error) {
	if b.w.after != nil {
		after = b.w.after(after)
	}
	t, err := b.feed.Tail(ctx, after)
	return brokenTail{t, b.w}, err
}

type brokenTail struct {
	counterfoil.Tail
	w *broken
}

func (b brokenTail) Next(ctx context.Context) (counterfoil.FeedBatch, error) {
	batch, err := b.Tail.Next(ctx)
	if err == nil && b.w.next != nil {
		b.w.next(&batch)
	}
	return batch, err
}

func (b brokenFeed) Prune(ctx context.Context, before time.Time, limit int) (int, error) {
	if b.w.prune != nil {
		return b.w.prune(before, limit)
	}
	return b.feed.Prune(ctx, before, limit)
}

func (b brokenCatalog) UpdateKeys(ctx context.Context, retain time.Duration, fn func(*counterfoil.KeyRing) error) (counterfoil.KeyRing, []counterfoil.Revocation, error) {
	if b.w.updateKeys != nil {
		return b.w.updateKeys(fn)
	}
	return b.catalog.UpdateKeys(ctx, retain, fn)
}

func (b brokenUsers) Create(ctx context.Context, u directory.User) error {
	if b.w.create != nil {
		return b.w.create(u)
	}
	return b.Store.Create(ctx, u)
}

func (b brokenUsers) User(ctx context.Context, id string) (directory.User, error) {
	if b.w.readUser != nil {
		return b.w.readUser(false, id)
	}
	return b.Store.User(ctx, id)
}

func (b brokenUsers) ByEmail(ctx context.Context, key string) (directory.User, error) {
	if b.w.readUser != nil {
		return b.w.readUser(true, key)
	}
	return b.Store.ByEmail(ctx, key)
}

func (b brokenUsers) Update(ctx context.Context, id string, fn func(*directory.User) (*counterfoil.Advance, error)) (directory.User, *counterfoil.Advanced, error) {
	if b.w.updateUser != nil {
		return b.w.updateUser(id, fn)
	}
	return b.Store.Update(ctx, id, fn)
}

func (b brokenUsers) Delete(ctx context.Context, id string, a counterfoil.Advance) (counterfoil.Advanced, error) {
	if b.w.deleteUser != nil {
		return b.w.deleteUser(id, a)
	}
	return b.Store.Delete(ctx, id, a)
}

func (b brokenUsers) Throttle(ctx context.Context, keys []string, fn func([]directory.Counter) error) error {
	if b.w.throttle != nil {
		return b.w.throttle(keys, fn)
	}
	return b.Store.Throttle(ctx, keys, fn)
}

func (w *broken) readUserWell(byEmail bool, key string) (directory.User, error) {
	if byEmail {
		return users{w.Store}.ByEmail(bg, key)
	}
	return users{w.Store}.User(bg, key)
}

// locked runs fn on the store's insides.
func (w *broken) locked(fn func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fn()
}

// alter gets at the row of a session, if it is there.
func (w *broken) alter(id string, fn func(*session)) {
	w.locked(func() {
		if row, ok := w.Store.sessions[id]; ok {
			fn(row)
		}
	})
}

const retained = 10 * time.Minute

// pause gives other goroutines the chance to come between.
func pause() {
	for range 20 {
		runtime.Gosched()
	}
}
