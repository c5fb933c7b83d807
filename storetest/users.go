package storetest

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
	"github.com/counterfoil/counterfoil/internal/opaque"
)

func (e *env) user(email string) directory.User {
	return directory.User{
		ID: opaque.NewID(), Email: email, EmailKey: strings.ToLower(email), Password: "$argon2id$v=19$m=1,t=1,p=1$c2FsdA$aGFzaA",
		Rights:    counterfoil.Rights{Roles: []string{"user"}, Scope: []string{"read"}},
		CreatedAt: e.clock.now(), UpdatedAt: e.clock.now(),
	}
}

func (e *env) create(email string) directory.User {
	e.t.Helper()
	u := e.user(email)
	e.must("Create", e.Users.Create(e.ctx, u))
	return u
}

func (e *env) readUser(id string) directory.User {
	e.t.Helper()
	u, err := e.Users.User(e.ctx, id)
	e.must("User", err)
	return u
}

func sameUser(t *testing.T, what string, got, want directory.User) {
	t.Helper()
	sameText(t, what+": ID", got.ID, want.ID)
	sameText(t, what+": Email", got.Email, want.Email)
	sameText(t, what+": EmailKey", got.EmailKey, want.EmailKey)
	sameText(t, what+": Password", got.Password, want.Password)
	sameRights(t, what+": Rights", got.Rights, want.Rights)
	sameTime(t, what+": CreatedAt", got.CreatedAt, want.CreatedAt)
	sameTime(t, what+": UpdatedAt", got.UpdatedAt, want.UpdatedAt)
	sameTime(t, what+": ResetExpiresAt", got.ResetExpiresAt, want.ResetExpiresAt)
	if got.ResetExpiresAt.IsZero() != want.ResetExpiresAt.IsZero() || got.ResetHash != want.ResetHash {
		t.Errorf("%s: got reset %x until %s, want %x until %s", what, got.ResetHash, got.ResetExpiresAt, want.ResetHash, want.ResetExpiresAt)
	}
}

// listUsers walks all pages.
func (e *env) listUsers(limit int) (all []directory.User) {
	e.t.Helper()
	after := ""
	for range 1000 {
		page, next, err := e.Users.List(e.ctx, after, limit)
		e.must("List", err)
		if len(page) > limit {
			e.t.Fatalf("List: got %d users, want at most the limit of %d", len(page), limit)
		}
		all = append(all, page...)
		if next == "" {
			return all
		}
		after = next
	}
	e.t.Fatal("List: the pages do not come to an end")
	return nil
}

var userDuties = []duty{
	{"Create keeps the user as given", func(t *testing.T, e *env) {
		u := e.user("Ann.O'Brien+tag@example.com")
		u.ResetHash, u.ResetExpiresAt = randomHash(), e.clock.now().Add(time.Hour)
		e.must("Create", e.Users.Create(e.ctx, u))
		sameUser(t, "User", e.readUser(u.ID), u)
		got, err := e.Users.ByEmail(e.ctx, u.EmailKey)
		e.must("ByEmail", err)
		sameUser(t, "ByEmail", got, u)
		bare := directory.User{ID: opaque.NewID(), Email: "b@example.com", EmailKey: "b@example.com", CreatedAt: e.clock.now(), UpdatedAt: e.clock.now()}
		e.must("Create without password", e.Users.Create(e.ctx, bare))
		sameUser(t, "a user without password", e.readUser(bare.ID), bare)
	}},
	{"Create gives the subject the user's rights and reports nothing", func(t *testing.T, e *env) {
		u := e.user("ann@example.com")
		u.Rights = counterfoil.Rights{Roles: []string{"admin", "user"}, Scope: []string{"read"}}
		e.must("Create", e.Users.Create(e.ctx, u))
		sameRights(t, "Subject", e.subject(u.ID).Rights, u.Rights)
		sameRights(t, "Snapshot", e.snapshot(e.start(u.ID).ID).Subject.Rights, u.Rights)
		e.wantLogged(0, nil)
		banned := e.user("ben@example.com")
		banned.Rights.Disabled = true
		e.must("Create", e.Users.Create(e.ctx, banned))
		_, err := e.sessions.Insert(e.ctx, e.session(banned.ID))
		e.wantErr("Insert for a user that was created disabled", err, counterfoil.ErrSubjectDisabled)
	}},
	{"The subject of a new user starts above all that was reported", func(t *testing.T, e *env) {
		told := e.subject("new").Epoch
		reported := e.change()
		u := e.create("ann@example.com")
		e.wantFresh(e.subject(u.ID).Epoch, reported)
		if epoch := e.subject(u.ID).Epoch; epoch < told {
			t.Errorf("got epoch %d, want no less than the %d told before", epoch, told)
		}
	}},
	{"A user comes with the subject's epoch", func(t *testing.T, e *env) {
		u := e.user("ann@example.com")
		u.Epoch = 1 << 40 // is not for writing
		e.must("Create", e.Users.Create(e.ctx, u))
		check := func(when string) {
			t.Helper()
			want := e.subject(u.ID).Epoch
			byEmail, err := e.Users.ByEmail(e.ctx, u.EmailKey)
			e.must("ByEmail", err)
			for what, got := range map[string]int64{"User": e.readUser(u.ID).Epoch, "ByEmail": byEmail.Epoch, "List": e.listUsers(10)[0].Epoch} {
				if got != want {
					t.Errorf("%s, %s: epoch %d, want %d", when, what, got, want)
				}
			}
		}
		check("new")
		e.advance(signOut(u.ID))
		check("after a sign-out")
		for _, a := range []*counterfoil.Advance{nil, new(rightsOnly(u.ID)), new(signOut(u.ID))} {
			before := e.subject(u.ID).Epoch
			updated, advanced, err := e.Users.Update(e.ctx, u.ID, func(u *directory.User) (*counterfoil.Advance, error) {
				if u.Epoch != before {
					t.Errorf("Update gives epoch %d, want %d", u.Epoch, before)
				}
				u.Epoch = 1 << 40
				u.Password += "x"
				return a, nil
			})
			e.must("Update", err)
			want := before
			if advanced != nil {
				want = advanced.Subject.Epoch
			}
			if updated.Epoch != want {
				t.Errorf("Update returns epoch %d, want %d", updated.Epoch, want)
			}
			check("after Update")
		}
	}},
	{"A user who is read while the password changes has epoch and password of one moment", func(t *testing.T, e *env) {
		ann := e.create("ann@example.com")
		epochs := map[string]int64{ann.Password: e.subject(ann.ID).Epoch}
		var reads, writes atomic.Int64
		over := func() bool { return min(reads.Load(), writes.Load()) >= int64(2*e.Rounds) || t.Failed() }
		seen := map[string]int64{}
		parallel(func() {
			for i := 0; !over(); i++ {
				_, advanced, err := e.Users.Update(e.ctx, ann.ID, func(u *directory.User) (*counterfoil.Advance, error) {
					u.Password = fmt.Sprint("password ", i)
					a := signOut(u.ID)
					return &a, nil
				})
				if err != nil {
					t.Errorf("Update: %v", err)
					return
				}
				epochs[fmt.Sprint("password ", i)] = advanced.Subject.Epoch
				writes.Add(1)
			}
		}, func() {
			for i := 0; !over(); i++ {
				u, err := e.Users.User(e.ctx, ann.ID)
				if i%2 == 0 {
					u, err = e.Users.ByEmail(e.ctx, ann.EmailKey)
				}
				if err != nil {
					t.Errorf("reading the user: %v", err)
					return
				}
				seen[u.Password] = max(seen[u.Password], u.Epoch)
				reads.Add(1)
			}
		})
		for password, epoch := range seen {
			if epoch > epochs[password] {
				t.Errorf("%s was read with epoch %d, and has epoch %d: it would survive the sign-out that replaced it", password, epoch, epochs[password])
			}
		}
	}},
	{"An address that is taken is ErrEmailTaken and changes nothing", func(t *testing.T, e *env) {
		ann, ben := e.create("ann@example.com"), e.create("ben@example.com")
		twin := e.user("ANN@example.com")
		e.wantErr("Create", e.Users.Create(e.ctx, twin), directory.ErrEmailTaken)
		_, err := e.Users.User(e.ctx, twin.ID)
		e.wantErr("User after a refused Create", err, counterfoil.ErrNotFound)
		if e.subject(twin.ID).Roles != nil {
			t.Error("a refused Create left rights behind")
		}
		_, _, err = e.Users.Update(e.ctx, ben.ID, func(u *directory.User) (*counterfoil.Advance, error) {
			u.Email, u.EmailKey, u.Password = ann.Email, ann.EmailKey, "x"
			a := signOut(ben.ID)
			a.Rights = &counterfoil.Rights{Roles: []string{"x"}}
			return &a, nil
		})
		e.wantErr("Update", err, directory.ErrEmailTaken)
		sameUser(t, "the other user", e.readUser(ben.ID), ben)
		sameRights(t, "Subject", e.subject(ben.ID).Rights, ben.Rights)
		e.wantLogged(0, nil)
	}},
	{"An ID that is taken is an error and changes nothing", func(t *testing.T, e *env) {
		ann := e.create("ann@example.com")
		twin := e.user("other@example.com")
		twin.ID = ann.ID
		if err := e.Users.Create(e.ctx, twin); err == nil {
			t.Error("got no error")
		}
		sameUser(t, "the first user", e.readUser(ann.ID), ann)
		_, err := e.Users.ByEmail(e.ctx, twin.EmailKey)
		e.wantErr("ByEmail", err, counterfoil.ErrNotFound)
	}},
	{"Missing users are ErrNotFound", func(t *testing.T, e *env) {
		e.create("ann@example.com")
		_, err := e.Users.User(e.ctx, opaque.NewID())
		e.wantErr("User", err, counterfoil.ErrNotFound)
		_, err = e.Users.ByEmail(e.ctx, "nobody@example.com")
		e.wantErr("ByEmail", err, counterfoil.ErrNotFound)
		id := opaque.NewID()
		_, _, err = e.Users.Update(e.ctx, id, func(*directory.User) (*counterfoil.Advance, error) {
			t.Error("fn was called for a user that is not there")
			a := signOut(id)
			return &a, nil
		})
		e.wantErr("Update", err, counterfoil.ErrNotFound)
		_, err = e.Users.Delete(e.ctx, id, signOut(id))
		e.wantErr("Delete", err, counterfoil.ErrNotFound)
		e.wantLogged(0, nil)
	}},
	{"Update changes the user and returns it", func(t *testing.T, e *env) {
		ann, ben := e.create("ann@example.com"), e.create("ben@example.com")
		want := ann
		want.Email, want.EmailKey, want.Password = "Ann@example.org", "ann@example.org", ""
		want.ResetHash, want.ResetExpiresAt = randomHash(), e.clock.now().Add(time.Hour)
		want.UpdatedAt = e.clock.now().Add(time.Minute)
		got, advanced, err := e.Users.Update(e.ctx, ann.ID, func(u *directory.User) (*counterfoil.Advance, error) {
			sameUser(t, "what fn sees", *u, ann)
			*u = want
			return nil, nil
		})
		e.must("Update", err)
		if advanced != nil {
			t.Error("got an Advanced, want nil as fn gave no Advance")
		}
		sameUser(t, "returned", got, want)
		sameUser(t, "User", e.readUser(ann.ID), want)
		sameUser(t, "the other user", e.readUser(ben.ID), ben)
		_, err = e.Users.ByEmail(e.ctx, ann.EmailKey)
		e.wantErr("ByEmail with the old address", err, counterfoil.ErrNotFound)
		got, err = e.Users.ByEmail(e.ctx, want.EmailKey)
		e.must("ByEmail with the new address", err)
		sameUser(t, "ByEmail", got, want)
		e.create("ann@example.com") // free again
		e.wantLogged(0, nil)
	}},
	{"Update carries out the Advance in the same transaction", func(t *testing.T, e *env) {
		ann := e.create("ann@example.com")
		kept, other := e.start(ann.ID), e.start(ann.ID)
		before := e.subject(ann.ID)
		rights := counterfoil.Rights{Roles: []string{"admin"}, Scope: []string{}}
		got, advanced, err := e.Users.Update(e.ctx, ann.ID, func(u *directory.User) (*counterfoil.Advance, error) {
			u.Password, u.Rights = "new", rights
			a := others(ann.ID, kept.ID)
			a.Rights = &rights
			return &a, nil
		})
		e.must("Update", err)
		if advanced == nil || advanced.Kept == nil {
			t.Fatalf("got Advanced %+v, want one with the kept session", advanced)
		}
		sameRights(t, "the user's rights", got.Rights, rights)
		sub := e.subject(ann.ID)
		sameSubject(t, "Advanced.Subject", advanced.Subject, sub)
		sameRights(t, "Subject", sub.Rights, rights)
		e.wantSubjectEntry(advanced.Revocation, ann.ID, before.Epoch+1, before.Epoch+1, kept.ID)
		e.wantLogged(0, []counterfoil.Revocation{advanced.Revocation})
		e.wantActive(kept.ID, "it was kept")
		e.wantRevoked(other.ID, "it was signed out with the change of password")
	}},
	{"Update returns fn's error as it is and writes nothing", func(t *testing.T, e *env) {
		ann := e.create("ann@example.com")
		s := e.start(ann.ID)
		mine := errors.New("mine")
		_, _, err := e.Users.Update(e.ctx, ann.ID, func(u *directory.User) (*counterfoil.Advance, error) {
			u.Password = "x"
			a := signOut(ann.ID)
			return &a, mine
		})
		if err != mine { //nolint:errorlint // as it is, not wrapped
			t.Errorf("got error %v, want fn's own, not wrapped", err)
		}
		sameUser(t, "User", e.readUser(ann.ID), ann)
		e.wantActive(s.ID, "the update failed")
		e.wantLogged(0, nil)
	}},
	{"Delete removes the user and carries out the Advance", func(t *testing.T, e *env) {
		ann := e.create("ann@example.com")
		s := e.start(ann.ID)
		given := e.session(ann.ID)
		given.Epoch0 = e.subject(ann.ID).Epoch
		done, err := e.Users.Delete(e.ctx, ann.ID, signOut(ann.ID))
		e.must("Delete", err)
		_, err = e.Users.User(e.ctx, ann.ID)
		e.wantErr("User", err, counterfoil.ErrNotFound)
		_, err = e.Users.ByEmail(e.ctx, ann.EmailKey)
		e.wantErr("ByEmail", err, counterfoil.ErrNotFound)
		e.wantRevoked(s.ID, "its user was deleted")
		sameSubject(t, "Advanced.Subject", done.Subject, e.subject(ann.ID))
		e.wantLogged(0, []counterfoil.Revocation{done.Revocation})
		_, err = e.sessions.Insert(e.ctx, given)
		e.wantErr("Insert with the epoch of before", err, counterfoil.ErrSignedOutMeanwhile)
		e.create("ann@example.com") // free again
	}},
	{"Users share no memory with callers", func(t *testing.T, e *env) {
		u := e.create("ann@example.com")
		got := e.readUser(u.ID)
		sub := e.subject(u.ID)
		if len(got.Rights.Roles) != 1 || len(sub.Roles) != 1 {
			t.Fatalf("got roles %q of the user and %q of the subject, want one each", got.Rights.Roles, sub.Roles)
		}
		u.Rights.Roles[0], got.Rights.Roles[0] = "x", "x"
		sameList(t, "User", e.readUser(u.ID).Rights.Roles, []string{"user"})
		sameList(t, "Subject", sub.Roles, []string{"user"})
		sub.Roles[0] = "x"
		sameList(t, "Subject", e.subject(u.ID).Roles, []string{"user"})
	}},
	{"List gives the users by address, in pages", func(t *testing.T, e *env) {
		var want []string
		for i := range 23 {
			e.create(fmt.Sprintf("%c@example.com", 'a'+(i*7)%23))
		}
		for i := range 23 {
			want = append(want, fmt.Sprintf("%c@example.com", 'a'+i))
		}
		for _, limit := range []int{1, 5, 23, 1000} {
			var got []string
			for _, u := range e.listUsers(limit) {
				got = append(got, u.EmailKey)
			}
			sameList(t, fmt.Sprintf("in pages of %d", limit), got, want)
		}
	}},
	{"Pages of users neither repeat nor leave out odd addresses", func(t *testing.T, e *env) {
		emails := []string{"a.b@x", "a-b@x", "a_b@x", "ab@x", "a+b@x", "a'b@x", "a%b@x", "ä@x", "z@x", "é@x", "中@x", "1@x", "10@x", "9@x"}
		for _, email := range emails {
			e.create(email)
		}
		for _, limit := range []int{1, 3} {
			seen := map[string]int{}
			for _, u := range e.listUsers(limit) {
				seen[u.Email]++
			}
			for _, email := range emails {
				if seen[email] != 1 {
					t.Errorf("in pages of %d: %s came %d times", limit, email, seen[email])
				}
			}
		}
	}},
	{"List refuses wrong limits and cursors", func(t *testing.T, e *env) {
		e.create("ann@example.com")
		for _, limit := range []int{-1, 0, 1001} {
			if _, _, err := e.Users.List(e.ctx, "", limit); err == nil {
				t.Errorf("limit %d: got no error", limit)
			}
		}
		for _, after := range []string{"x", "!", "'; --", "\x00", "AAAA"} {
			_, _, err := e.Users.List(e.ctx, after, 10)
			e.wantErr("List after "+after, err, counterfoil.ErrInvalidCursor)
		}
	}},
	{"Of parallel Creates with one address one wins", func(t *testing.T, e *env) {
		e.rounds(func(name string) {
			var won atomic.Int32
			parallel(times(4, func(int) {
				switch err := e.Users.Create(e.ctx, e.user(name+"@example.com")); {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, directory.ErrEmailTaken):
					t.Errorf("Create: got error %v, want %v", err, directory.ErrEmailTaken)
				}
			})...)
			if won.Load() != 1 {
				t.Errorf("%d users were created with one address", won.Load())
			}
		})
	}},
	{"Of parallel moves to one address one wins", func(t *testing.T, e *env) {
		e.rounds(func(name string) {
			users := []directory.User{e.create(name + "-a@example.com"), e.create(name + "-b@example.com"), e.create(name + "-c@example.com")}
			var won atomic.Int32
			parallel(times(len(users), func(i int) {
				_, _, err := e.Users.Update(e.ctx, users[i].ID, func(u *directory.User) (*counterfoil.Advance, error) {
					u.Email, u.EmailKey = name+"@example.com", name+"@example.com"
					return nil, nil
				})
				switch {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, directory.ErrEmailTaken):
					t.Errorf("Update: got error %v, want %v", err, directory.ErrEmailTaken)
				}
			})...)
			if won.Load() != 1 {
				t.Errorf("%d users have one address", won.Load())
			}
		})
	}},
	{"Parallel updates of a user lose nothing", func(t *testing.T, e *env) {
		ann := e.create("ann@example.com")
		e.start(ann.ID)
		before, after := e.subject(ann.ID).Epoch, e.head().Position
		var reported record
		parallel(times(writers, func(int) {
			for range writes {
				_, advanced, err := e.Users.Update(e.ctx, ann.ID, func(u *directory.User) (*counterfoil.Advance, error) {
					u.Rights.Roles = append(u.Rights.Roles, "x")
					a := rightsOnly(ann.ID)
					a.Rights = &u.Rights
					return &a, nil
				})
				if err != nil {
					t.Errorf("Update: %v", err)
					return
				}
				reported.add(advanced.Revocation)
			}
		})...)
		if n := len(e.readUser(ann.ID).Rights.Roles); n != 1+writers*writes {
			t.Errorf("%d updates added a role each, and there are %d beside the first: updates were lost", writers*writes, n-1)
		}
		sub := e.subject(ann.ID)
		if len(sub.Roles) != 1+writers*writes || sub.Epoch != before+writers*writes {
			t.Errorf("the subject has %d roles and epoch %d, want %d and %d", len(sub.Roles), sub.Epoch, 1+writers*writes, before+writers*writes)
		}
		e.wantLogged(after, reported.all)
	}},
	{"A sign-in that checked an old password does not survive its change", func(t *testing.T, e *env) {
		e.rounds(func(name string) {
			u := e.create(name + "@example.com")
			given := e.session(u.ID)
			given.Epoch0 = e.subject(u.ID).Epoch
			var started bool
			parallel(func() {
				_, err := e.sessions.Insert(e.ctx, given)
				started = err == nil
				if err != nil && !errors.Is(err, counterfoil.ErrSignedOutMeanwhile) {
					t.Errorf("Insert: %v", err)
				}
			}, func() {
				_, _, err := e.Users.Update(e.ctx, u.ID, func(u *directory.User) (*counterfoil.Advance, error) {
					u.Password = "new"
					a := signOut(u.ID)
					return &a, nil
				})
				if err != nil {
					t.Errorf("Update: %v", err)
				}
			})
			if started {
				e.wantRevoked(given.ID, "its password was checked before the change")
			}
		})
	}},
}
