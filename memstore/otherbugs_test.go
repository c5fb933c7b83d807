package memstore

import (
	"context"
	"slices"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
	"github.com/counterfoil/counterfoil/internal/revoked"
)

// otherBugs are those of subjects, log, keys and users.
var otherBugs = []bug{
	{"A user and the epoch are read apart", "Users/A user who is read while the password changes", func(w *broken) {
		w.readUser = func(byEmail bool, key string) (directory.User, error) {
			u, err := w.readUserWell(byEmail, key)
			for range 1000 { // the other side is to come between
				if sub, _ := (sessions{w.Store}).Subject(bg, u.ID); err == nil && sub.Epoch != u.Epoch {
					u.Epoch = sub.Epoch
					break
				}
				pause()
			}
			return u, err
		}
	}},
	{"A user comes without an epoch", "Users/A user comes with the subject's epoch", func(w *broken) {
		w.readUser = func(byEmail bool, key string) (directory.User, error) {
			u, err := w.readUserWell(byEmail, key)
			u.Epoch = 0
			return u, err
		}
	}},
	{"Tail starts at the head", "Tail/The first read", func(w *broken) {
		w.after = func(int64) int64 { return w.position }
	}},
	{"Tail takes the highest position for all that there is", "Tail/What was committed before a read", func(w *broken) {
		// As if the first of two had been committed after the second.
		w.next = func(b *counterfoil.FeedBatch) {
			if len(b.Entries) > 1 {
				b.Entries = b.Entries[1:]
			}
		}
	}},
	{"Tail gives each entry to one tail only", "Tail/The next read", func(w *broken) {
		var given int64
		w.next = func(b *counterfoil.FeedBatch) {
			b.Entries = slices.DeleteFunc(b.Entries, func(r counterfoil.Revocation) bool { return r.Position <= given })
			given = max(given, b.Resolved)
		}
	}},
	{"Tail holds the last entry back", "Tail/The next read", func(w *broken) {
		var held []counterfoil.Revocation
		w.next = func(b *counterfoil.FeedBatch) {
			all := slices.Concat(held, b.Entries)
			n := max(0, len(all)-1)
			b.Entries, held = all[:n], all[n:]
		}
	}},
	{"Tail resolves what is to come", "Tail/The first read", func(w *broken) {
		w.next = func(b *counterfoil.FeedBatch) { b.Resolved += 10 }
	}},
	{"Tail forgets the signing keys", "Tail/A change of the signing keys", func(w *broken) {
		w.next = func(b *counterfoil.FeedBatch) { b.KeyVersion = 0 }
	}},
	{"Tail is younger than what it read", "Tail/", func(w *broken) {
		w.next = func(b *counterfoil.FeedBatch) { b.ReadAt = time.Now().Add(time.Second) }
	}},
	{"Advance leaves the kept session's Epoch0", "Keeps/Keep raises the kept session's Epoch0", func(w *broken) {
		w.advance = func(a counterfoil.Advance) (counterfoil.Advanced, error) {
			var before int64
			if a.Keep != nil {
				w.alter(a.Keep.ID, func(row *session) { before = row.Epoch0 })
			}
			done, err := sessions{w.Store}.Advance(bg, a)
			if a.Keep != nil {
				w.alter(a.Keep.ID, func(row *session) { row.Epoch0 = before })
			}
			return done, err
		}
	}},
	{"Advance keeps what had ended", "Keeps/Keep does not bring back", func(w *broken) {
		w.advance = func(a counterfoil.Advance) (counterfoil.Advanced, error) {
			done, err := sessions{w.Store}.Advance(bg, a)
			if a.Keep != nil {
				w.alter(a.Keep.ID, func(row *session) { row.Epoch0 = done.Subject.Epoch })
			}
			return done, err
		}
	}},
	{"Advance looks whether the kept one ended, then writes", "Races/A session that ends while it is kept", func(w *broken) {
		w.advance = func(a counterfoil.Advance) (counterfoil.Advanced, error) {
			var ended bool
			if a.Keep != nil {
				w.alter(a.Keep.ID, func(row *session) { ended = w.endOf(row) != nil })
				pause()
				if !ended {
					w.alter(a.Keep.ID, func(row *session) { row.End = nil })
				}
			}
			return sessions{w.Store}.Advance(bg, a)
		}
	}},
	{"Advance keeps another subject's session", "Keeps/Keep of another subject's session", func(w *broken) {
		w.advance = func(a counterfoil.Advance) (counterfoil.Advanced, error) {
			if a.Keep != nil {
				w.alter(a.Keep.ID, func(row *session) { row.Subject = a.Subject })
			}
			return sessions{w.Store}.Advance(bg, a)
		}
	}},
	{"Advance excepts what it did not keep", "Keeps/Keep does not bring back", func(w *broken) {
		w.advance = func(a counterfoil.Advance) (counterfoil.Advanced, error) {
			done, err := sessions{w.Store}.Advance(bg, a)
			if a.Keep != nil {
				done.Revocation.Except = a.Keep.ID
				w.locked(func() { w.log[len(w.log)-1].Except = a.Keep.ID })
			}
			return done, err
		}
	}},
	{"Advance leaves the old secret", "Keeps/Keep replaces secret", func(w *broken) {
		w.advance = func(a counterfoil.Advance) (counterfoil.Advanced, error) {
			if a.Keep != nil {
				keep := *a.Keep
				keep.SecretHash = counterfoil.Keep{}.SecretHash
				a.Keep = &keep
			}
			return sessions{w.Store}.Advance(bg, a)
		}
	}},
	{"Advance lets ends take the reason of the latest sign-out", "Subjects/A later sign-out leaves the ends", func(w *broken) {
		w.advance = func(a counterfoil.Advance) (counterfoil.Advanced, error) {
			var alone []*session
			w.locked(func() {
				for _, row := range w.order {
					if row.Subject == a.Subject && row.End == nil {
						alone = append(alone, row)
					}
				}
			})
			done, err := sessions{w.Store}.Advance(bg, a)
			w.locked(func() {
				for _, row := range alone {
					row.End = nil
				}
			})
			return done, err
		}
	}},
	{"Advance forgets rights", "Subjects/Advance for rights", func(w *broken) {
		w.advance = func(a counterfoil.Advance) (counterfoil.Advanced, error) {
			a.Rights = nil
			return sessions{w.Store}.Advance(bg, a)
		}
	}},
	{"Rights only signs out", "Subjects/Advance for rights", func(w *broken) {
		w.advance = func(a counterfoil.Advance) (counterfoil.Advanced, error) {
			a.SignOut = true
			return sessions{w.Store}.Advance(bg, a)
		}
	}},
	{"The entry tells the epoch of before", "Subjects/Advance with SignOut", func(w *broken) {
		w.advance = func(a counterfoil.Advance) (counterfoil.Advanced, error) {
			done, err := sessions{w.Store}.Advance(bg, a)
			if a.SignOut {
				done.Revocation.RevokedBelow--
				w.locked(func() { w.log[len(w.log)-1].RevokedBelow-- })
			}
			return done, err
		}
	}},

	{"New subjects start at one", "Subjects/A subject without a row starts above", func(w *broken) {
		w.subject = func(id string) (counterfoil.Subject, error) {
			w.locked(func() {
				if w.subjects[id] == nil {
					w.subjects[id] = &subject{counterfoil.Subject{ID: id, Epoch: 1}}
				}
			})
			return sessions{w.Store}.Subject(bg, id)
		}
	}},
	{"Subject makes a row", "Subjects/Subject makes no row", func(w *broken) {
		w.subject = func(id string) (counterfoil.Subject, error) {
			w.locked(func() { w.subjects[id] = w.peek(id) })
			return sessions{w.Store}.Subject(bg, id)
		}
	}},
	{"Subject tells more than the row will have", "Subjects/A sign-in that read the epoch of no row", func(w *broken) {
		w.subject = func(id string) (counterfoil.Subject, error) {
			sub, err := sessions{w.Store}.Subject(bg, id)
			w.locked(func() {
				if w.subjects[id] == nil {
					sub.Epoch += 1000
				}
			})
			return sub, err
		}
	}},

	{"Positions start anew when the log is empty", "Feed/Positions are not given again", func(w *broken) {
		w.prune = func(before time.Time, limit int) (int, error) {
			n, err := feed{w.Store}.Prune(bg, before, limit)
			w.locked(func() {
				if len(w.log) == 0 {
					w.position = 0
				}
			})
			return n, err
		}
	}},
	{"Head tells the last entry that is left", "Feed/Positions are not given again", func(w *broken) {
		w.head = func() (head counterfoil.FeedHead, err error) {
			w.locked(func() {
				head.Timeline = 1
				if n := len(w.log); n > 0 {
					head.Position = w.log[n-1].Position
				}
			})
			return head, nil
		}
	}},
	{"Prune takes keys", "Feed/Prune never deletes key entries", func(w *broken) {
		w.prune = func(before time.Time, limit int) (int, error) {
			n, err := feed{w.Store}.Prune(bg, before, limit)
			w.locked(func() {
				w.log = slices.DeleteFunc(w.log, func(e counterfoil.Revocation) bool {
					return e.Kind == revoked.Key && e.Until.Before(before)
				})
			})
			return n, err
		}
	}},
	{"Prune takes what is needed", "Feed/Prune never deletes an entry that is still needed", func(w *broken) {
		w.prune = func(before time.Time, _ int) (n int, err error) {
			w.locked(func() {
				if len(w.log) > 0 && w.log[0].Until.Before(before) {
					w.log, n = w.log[1:], 1
				}
			})
			return n, nil
		}
	}},

	{"UpdateKeys does not compare", "Catalog/Parallel changes of the ring", func(w *broken) {
		w.updateKeys = func(fn func(*counterfoil.KeyRing) error) (counterfoil.KeyRing, []counterfoil.Revocation, error) {
			seen, _ := catalog{w.Store}.Keys(bg)
			if err := fn(&seen); err != nil {
				return seen, nil, err
			}
			pause()
			return catalog{w.Store}.UpdateKeys(bg, retained, func(r *counterfoil.KeyRing) error {
				*r = seen
				return nil
			})
		}
	}},
	{"Revoked keys go unreported", "Catalog/A key that is turned to revoked", func(w *broken) {
		w.updateKeys = func(fn func(*counterfoil.KeyRing) error) (counterfoil.KeyRing, []counterfoil.Revocation, error) {
			ring, revocations, err := catalog{w.Store}.UpdateKeys(bg, retained, fn)
			w.locked(func() { w.log = w.log[:len(w.log)-len(revocations)] })
			return ring, revocations, err
		}
	}},

	{"Create forgets the subject's rights", "Users/Create gives the subject", func(w *broken) {
		w.create = func(u directory.User) error {
			err := users{w.Store}.Create(bg, u)
			w.locked(func() {
				if err == nil {
					w.subjects[u.ID].Rights = counterfoil.Rights{}
				}
			})
			return err
		}
	}},
	{"Create looks for the address, then writes", "Users/Of parallel Creates", func(w *broken) {
		w.create = func(u directory.User) error {
			if _, err := (users{w.Store}).ByEmail(bg, u.EmailKey); err == nil {
				return directory.ErrEmailTaken
			}
			pause()
			w.locked(func() { delete(w.emails, u.EmailKey) })
			return users{w.Store}.Create(bg, u)
		}
	}},
	{"The Advance of a user is carried out first", "Users/An address that is taken", func(w *broken) {
		w.updateUser = func(id string, fn func(*directory.User) (*counterfoil.Advance, error)) (directory.User, *counterfoil.Advanced, error) {
			var advanced *counterfoil.Advanced
			u, _, err := users{w.Store}.Update(bg, id, func(u *directory.User) (*counterfoil.Advance, error) {
				a, err := fn(u)
				if err == nil && a != nil {
					done, _ := sessions{w.Store}.Advance(bg, *a)
					advanced = &done
				}
				return nil, err
			})
			return u, advanced, err
		}
	}},
	{"Delete leaves the sessions", "Users/Delete removes the user", func(w *broken) {
		w.deleteUser = func(id string, a counterfoil.Advance) (counterfoil.Advanced, error) {
			a.SignOut = false
			return users{w.Store}.Delete(bg, id, a)
		}
	}},
	{"Throttle reads, then writes", "Throttle/Parallel attempts", func(w *broken) {
		w.throttle = func(keys []string, fn func([]directory.Counter) error) error {
			var seen []directory.Counter
			_ = users{w.Store}.Throttle(bg, keys, func(c []directory.Counter) error {
				seen = slices.Clone(c)
				return context.Canceled
			})
			if err := fn(seen); err != nil {
				return err
			}
			pause()
			return users{w.Store}.Throttle(bg, keys, func(c []directory.Counter) error {
				copy(c, seen)
				return nil
			})
		}
	}},
	{"Throttle never forgets", "Throttle/Counters that are past", func(w *broken) {
		w.throttle = func(keys []string, fn func([]directory.Counter) error) error {
			return users{w.Store}.Throttle(bg, keys, func(c []directory.Counter) error {
				err := fn(c)
				for i := range c {
					if c[i].Failures > 0 {
						c[i].ExpiresAt = c[i].ExpiresAt.Add(10000 * time.Hour)
					}
				}
				return err
			})
		}
	}},
}
