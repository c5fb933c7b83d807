package memstore

import (
	"context"
	"slices"
	"time"

	"github.com/counterfoil/counterfoil"
)

// bug breaks one duty; breaks is where the specification must say so.
type bug struct {
	name   string
	breaks string // group, or group and duty
	plant  func(w *broken)
}

var bg = context.Background()

var bugs = slices.Concat(sessionBugs, otherBugs)

var sessionBugs = []bug{
	{"Insert forgets the binding", "Bindings/Insert keeps a binding", func(w *broken) {
		w.insert = func(s counterfoil.Session) (counterfoil.Snapshot, error) {
			s.Binding = nil
			return sessions{w.Store}.Insert(bg, s)
		}
	}},
	{"End writes no feed entry", "Ends/End gives one feed entry", func(w *broken) {
		w.end = func(r counterfoil.EndRequest) (counterfoil.Ended, error) {
			ended, err := sessions{w.Store}.End(bg, r)
			w.locked(func() { w.log = w.log[:len(w.log)-len(ended.Revocations)] })
			return ended, err
		}
	}},
	{"End writes its entry twice", "Ends/End gives one feed entry", func(w *broken) {
		w.end = func(r counterfoil.EndRequest) (counterfoil.Ended, error) {
			ended, err := sessions{w.Store}.End(bg, r)
			w.locked(func() {
				for _, e := range ended.Revocations {
					w.report(e, w.now(), retained)
				}
			})
			return ended, err
		}
	}},
	{"End of an ended session ends it anew", "Ends/End of an ended session", func(w *broken) {
		w.end = func(r counterfoil.EndRequest) (counterfoil.Ended, error) {
			w.alter(r.ID, func(row *session) { row.End = nil })
			return sessions{w.Store}.End(bg, r)
		}
	}},
	{"End forgets derived sessions", "Ends/End ends all that was derived", func(w *broken) {
		w.end = func(r counterfoil.EndRequest) (counterfoil.Ended, error) {
			w.locked(func() { clear(w.children) })
			return sessions{w.Store}.End(bg, r)
		}
	}},
	{"End goes one level deep", "Ends/End ends all that was derived", func(w *broken) {
		w.end = func(r counterfoil.EndRequest) (counterfoil.Ended, error) {
			w.locked(func() {
				for id := range w.children {
					if id != r.ID {
						delete(w.children, id)
					}
				}
			})
			return sessions{w.Store}.End(bg, r)
		}
	}},
	{"End takes no heed of the subject", "Ends/End for another subject", func(w *broken) {
		w.end = func(r counterfoil.EndRequest) (counterfoil.Ended, error) {
			r.Subject = ""
			return sessions{w.Store}.End(bg, r)
		}
	}},
	{"End believes the caller's time", "Ends/End records reason", func(w *broken) {
		w.end = func(r counterfoil.EndRequest) (counterfoil.Ended, error) {
			ended, err := sessions{w.Store}.End(bg, r)
			w.alter(r.ID, func(row *session) {
				if ended.Changed {
					row.End.At = r.End.At
				}
			})
			return ended, err
		}
	}},
	{"End looks, then writes", "Races/Parallel Ends of one session", func(w *broken) {
		w.end = func(r counterfoil.EndRequest) (counterfoil.Ended, error) {
			snap, err := sessions{w.Store}.Snapshot(bg, r.ID)
			if err != nil || snap.Session.End != nil {
				return counterfoil.Ended{Session: snap.Session}, err
			}
			pause()
			w.alter(r.ID, func(row *session) { row.End = nil })
			return sessions{w.Store}.End(bg, r)
		}
	}},

	{"Insert takes the present epoch always", "Races/A sign-in that read the epoch before", func(w *broken) {
		w.insert = func(s counterfoil.Session) (counterfoil.Snapshot, error) {
			sub, _ := sessions{w.Store}.Subject(bg, s.Subject)
			if s.Epoch0 != 0 && s.Epoch0 < sub.SignedOutBelow {
				return counterfoil.Snapshot{}, counterfoil.ErrSignedOutMeanwhile
			}
			pause()
			s.Epoch0 = 0
			return sessions{w.Store}.Insert(bg, s)
		}
	}},
	{"Insert takes no heed of SignedOutBelow", "Sessions/Insert below SignedOutBelow", func(w *broken) {
		w.insert = func(s counterfoil.Session) (counterfoil.Snapshot, error) {
			s.Epoch0 = 0
			return sessions{w.Store}.Insert(bg, s)
		}
	}},
	{"Insert believes an epoch from the future", "Sessions/Insert with an Epoch0 from the future", func(w *broken) {
		w.insert = func(s counterfoil.Session) (counterfoil.Snapshot, error) {
			snap, err := sessions{w.Store}.Insert(bg, s)
			if err == nil && s.Epoch0 != 0 {
				w.alter(s.ID, func(row *session) { row.Epoch0 = s.Epoch0 })
			}
			return snap, err
		}
	}},
	{"Insert lets the disabled in", "Sessions/Insert for a disabled subject", func(w *broken) {
		w.insert = func(s counterfoil.Session) (counterfoil.Snapshot, error) {
			w.locked(func() {
				if row := w.subjects[s.Subject]; row != nil {
					row.Disabled = false
				}
			})
			return sessions{w.Store}.Insert(bg, s)
		}
	}},
	{"Insert below an ended parent", "Races/A child that starts while its parent ends", func(w *broken) {
		w.insert = func(s counterfoil.Session) (counterfoil.Snapshot, error) {
			parent := s.ParentID
			if parent != "" {
				if snap, err := (sessions{w.Store}).Snapshot(bg, parent); err != nil || snap.Session.End != nil {
					return counterfoil.Snapshot{}, counterfoil.ErrSessionRevoked
				}
				pause()
			}
			s.ParentID = ""
			snap, err := sessions{w.Store}.Insert(bg, s)
			w.alter(s.ID, func(row *session) {
				row.ParentID = parent
				if w.children[parent] == nil {
					w.children[parent] = map[string]*session{}
				}
				w.children[parent][row.ID] = row
			})
			return snap, err
		}
	}},
	{"Empty roles become nil", "Values/Nil Roles and Scope", func(w *broken) {
		w.insert = func(s counterfoil.Session) (counterfoil.Snapshot, error) {
			if len(s.Roles) == 0 {
				s.Roles = nil
			}
			return sessions{w.Store}.Insert(bg, s)
		}
	}},
	{"Texts are trimmed", "Values/Texts are kept exactly", func(w *broken) {
		w.insert = func(s counterfoil.Session) (counterfoil.Snapshot, error) {
			s.ClientID = string(slices.DeleteFunc([]rune(s.ClientID), func(r rune) bool { return r == 0x200d }))
			return sessions{w.Store}.Insert(bg, s)
		}
	}},
	{"Times are cut to the second", "Values/Times are kept", func(w *broken) {
		w.insert = func(s counterfoil.Session) (counterfoil.Snapshot, error) {
			s.AuthTime = s.AuthTime.Truncate(time.Second)
			return sessions{w.Store}.Insert(bg, s)
		}
	}},

	{"Snapshot shares memory", "Sessions/Callers share no memory", func(w *broken) {
		w.snapshot = func(id string) (counterfoil.Snapshot, error) {
			snap, err := sessions{w.Store}.Snapshot(bg, id)
			w.alter(id, func(row *session) { snap.Session.Methods = row.Methods })
			return snap, err
		}
	}},
	{"Snapshot tells the row's own end only", "Subjects/Advance with SignOut ends every session", func(w *broken) {
		w.snapshot = func(id string) (counterfoil.Snapshot, error) {
			snap, err := sessions{w.Store}.Snapshot(bg, id)
			w.alter(id, func(row *session) { snap.Session.End = cloneEnd(row.End) })
			return snap, err
		}
	}},
	{"Snapshot reads session and subject apart", "Races/", func(w *broken) {
		w.snapshot = func(id string) (counterfoil.Snapshot, error) {
			snap, err := sessions{w.Store}.Snapshot(bg, id)
			if err == nil {
				pause()
				snap.Subject, err = sessions{w.Store}.Subject(bg, snap.Session.Subject)
			}
			return snap, err
		}
	}},
	{"An end in the future does not count", "Clock/A clock set back revives no ended session", func(w *broken) {
		w.snapshot = func(id string) (counterfoil.Snapshot, error) {
			snap, err := sessions{w.Store}.Snapshot(bg, id)
			if end := snap.Session.End; end != nil && end.At.After(snap.Now) {
				snap.Session.End = nil
			}
			return snap, err
		}
	}},
	{"A cache answers Snapshot", "Races/No read that began after End returned", func(w *broken) {
		cache := map[string]counterfoil.Snapshot{}
		w.snapshot = func(id string) (counterfoil.Snapshot, error) {
			snap, err := sessions{w.Store}.Snapshot(bg, id)
			w.locked(func() {
				if old, ok := cache[id]; ok {
					snap = old
				} else if err == nil {
					cache[id] = snap
				}
			})
			return snap, err
		}
	}},

	{"Update does not compare", "Races/Parallel updates lose nothing", func(w *broken) {
		w.update = func(id string, fn func(*counterfoil.Session) (bool, error)) (counterfoil.Session, []counterfoil.Revocation, error) {
			seen, _, err := w.read(id)
			if err != nil {
				return seen, nil, err
			}
			stale, err := fn(&seen)
			if err != nil {
				return seen, nil, err
			}
			pause()
			for {
				now, version, err := w.read(id)
				if err != nil {
					return now, nil, err
				}
				if after, revocations, swapped, err := w.swap(seen, version, stale, retained); swapped || err != nil {
					return after, revocations, err
				}
			}
		}
	}},
	{"Update takes touches back", "Races/An update takes no touch back", func(w *broken) {
		w.update = func(id string, fn func(*counterfoil.Session) (bool, error)) (counterfoil.Session, []counterfoil.Revocation, error) {
			var seen time.Time
			got, revocations, err := sessions{w.Store}.Update(bg, id, retained, func(s *counterfoil.Session) (bool, error) {
				seen = s.LastActiveAt
				return fn(s)
			})
			pause()
			w.alter(id, func(row *session) { row.LastActiveAt = seen })
			return got, revocations, err
		}
	}},
	{"Update writes before fn fails", "Sessions/Update returns fn's error", func(w *broken) {
		w.update = func(id string, fn func(*counterfoil.Session) (bool, error)) (counterfoil.Session, []counterfoil.Revocation, error) {
			var failure error
			s, revocations, err := sessions{w.Store}.Update(bg, id, retained, func(s *counterfoil.Session) (stale bool, err error) {
				stale, failure = fn(s)
				return stale, nil
			})
			if failure != nil {
				return s, nil, failure
			}
			return s, revocations, err
		}
	}},
	{"Update reports no stale epoch", "Sessions/Update with stale raises the epoch", func(w *broken) {
		w.update = func(id string, fn func(*counterfoil.Session) (bool, error)) (counterfoil.Session, []counterfoil.Revocation, error) {
			return sessions{w.Store}.Update(bg, id, retained, func(s *counterfoil.Session) (bool, error) {
				_, err := fn(s)
				return false, err
			})
		}
	}},
	{"Update brings sessions back", "Sessions/Update leaves ID, Subject", func(w *broken) {
		w.update = func(id string, fn func(*counterfoil.Session) (bool, error)) (counterfoil.Session, []counterfoil.Revocation, error) {
			var epoch0 int64
			s, revocations, err := sessions{w.Store}.Update(bg, id, retained, func(s *counterfoil.Session) (bool, error) {
				stale, err := fn(s)
				epoch0 = s.Epoch0
				return stale, err
			})
			if err == nil {
				w.alter(id, func(row *session) { row.Epoch0 = epoch0 })
			}
			return s, revocations, err
		}
	}},

	{"Touch resurrects", "Sessions/Touch leaves ended sessions", func(w *broken) {
		w.touch = func(touches []counterfoil.Touch) error {
			for _, t := range touches {
				w.alter(t.ID, func(row *session) { row.End = nil })
			}
			return sessions{w.Store}.Touch(bg, touches)
		}
	}},
	{"Touch writes back an old row", "Races/", func(w *broken) {
		w.touch = func(touches []counterfoil.Touch) error {
			for _, t := range touches {
				var end *counterfoil.End
				w.alter(t.ID, func(row *session) { end = row.End })
				pause()
				w.alter(t.ID, func(row *session) { row.End = end })
			}
			return sessions{w.Store}.Touch(bg, touches)
		}
	}},
	{"Touch goes back", "Sessions/Touch moves LastActiveAt forward", func(w *broken) {
		w.touch = func(touches []counterfoil.Touch) error {
			for _, t := range touches {
				w.alter(t.ID, func(row *session) { row.LastActiveAt = t.At.UTC() })
			}
			return nil
		}
	}},
	{"Touch stops at an unknown session", "Sessions/Touch skips unknown sessions", func(w *broken) {
		w.touch = func(touches []counterfoil.Touch) error {
			for _, t := range touches {
				if _, _, err := w.read(t.ID); err != nil {
					return nil
				}
				if err := (sessions{w.Store}).Touch(bg, []counterfoil.Touch{t}); err != nil {
					return err
				}
			}
			return nil
		}
	}},

	{"Purge goes by the caller's clock", "Purge/Purge never deletes an active session", func(w *broken) {
		w.purge = func(before time.Time, limit int) (int, error) {
			real := w.clock
			w.locked(func() { w.clock = func() time.Time { return before } })
			defer w.locked(func() { w.clock = real })
			return sessions{w.Store}.Purge(bg, before, limit)
		}
	}},
	{"Purge knows no limit", "Purge/Purge keeps to its limit", func(w *broken) {
		w.purge = func(before time.Time, _ int) (int, error) { return sessions{w.Store}.Purge(bg, before, 1000) }
	}},
	{"Purge forgets who signed out", "Purge/Purge leaves the subject", func(w *broken) {
		w.purge = func(before time.Time, limit int) (int, error) {
			n, err := sessions{w.Store}.Purge(bg, before, limit)
			w.locked(func() {
				if len(w.order) == 0 {
					clear(w.subjects)
				}
			})
			return n, err
		}
	}},

	{"List tells the row's own end only", "Lists/List resolves ends", func(w *broken) {
		w.list = func(q counterfoil.ListQuery) ([]counterfoil.Session, string, error) {
			page, next, err := sessions{w.Store}.List(bg, q)
			for i := range page {
				w.alter(page[i].ID, func(row *session) { page[i].End = cloneEnd(row.End) })
			}
			return page, next, err
		}
	}},
	{"List pages by time alone", "Lists/Pages neither repeat nor leave out", func(w *broken) {
		w.list = func(q counterfoil.ListQuery) ([]counterfoil.Session, string, error) {
			page, next, err := sessions{w.Store}.List(bg, q)
			if next != "" {
				last := page[len(page)-1]
				last.ID = ""
				next = encodeCursor(last)
			}
			return page, next, err
		}
	}},
	{"List takes any cursor", "Lists/A cursor that List never gave", func(w *broken) {
		w.list = func(q counterfoil.ListQuery) ([]counterfoil.Session, string, error) {
			if _, err := decodeCursor(q.After); err != nil {
				q.After = ""
			}
			return sessions{w.Store}.List(bg, q)
		}
	}},
}
