package storetest

import (
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/opaque"
)

var valueDuties = []duty{
	{"Times are kept in UTC and to the millisecond at least", func(t *testing.T, e *env) {
		given := e.session("ann")
		zone := time.FixedZone("far", 5*3600+1800)
		given.CreatedAt = time.Date(2031, 5, 4, 3, 2, 1, 987_654_321, zone)
		given.LastActiveAt = time.Date(2031, 5, 4, 3, 2, 1, 999_999_999, zone)
		given.AuthTime = time.Date(2031, 5, 4, 3, 2, 1, 1_000_000, zone)
		given.IdleTimeout = 90*time.Minute + 7*time.Millisecond
		got := e.insert(given)
		given.Epoch0 = got.Epoch0
		sameSession(t, "Insert", got, given)
		sameSession(t, "Snapshot", e.snapshot(given.ID).Session, given)
		if at := e.snapshot(given.ID).Session.AuthTime; !at.Equal(given.AuthTime) {
			t.Errorf("whole milliseconds must stay exact: got %s, want %s", at, given.AuthTime)
		}
	}},
	{"Times far away are kept", func(t *testing.T, e *env) {
		given := e.session("ann")
		given.CreatedAt = time.Date(1912, 6, 23, 0, 0, 0, 1e6, time.UTC)
		given.LastActiveAt = e.clock.now()
		given.ExpiresAt = time.Date(9999, 12, 31, 23, 59, 59, 999e6, time.UTC)
		given.IdleTimeout = 200 * 365 * 24 * time.Hour
		given.AuthTime = time.Date(1969, 12, 31, 23, 59, 59, 999e6, time.UTC)
		given.Epoch0 = e.insert(given).Epoch0
		sameSession(t, "Snapshot", e.snapshot(given.ID).Session, given)
		e.wantActive(given.ID, "it does not expire for two hundred years")
	}},
	{"The zero time stays zero", func(t *testing.T, e *env) {
		given := e.session("ann")
		given.AuthTime = time.Time{}
		e.insert(given)
		if at := e.snapshot(given.ID).Session.AuthTime; !at.IsZero() {
			t.Errorf("AuthTime: got %s, want the zero time", at)
		}
	}},
	{"Nil Roles and Scope differ from empty ones", func(t *testing.T, e *env) {
		for _, list := range [][]string{nil, {}, {"a"}, {"b", "a", "a"}} {
			given := e.session("ann")
			given.Roles, given.Scope = list, list
			got := e.insert(given)
			sameListOrNil(t, "Insert: Roles", got.Roles, list)
			sameListOrNil(t, "Insert: Scope", got.Scope, list)
			got = e.snapshot(given.ID).Session
			sameListOrNil(t, "Snapshot: Roles", got.Roles, list)
			sameListOrNil(t, "Snapshot: Scope", got.Scope, list)
			got, _ = e.update(given.ID, false, func(s *counterfoil.Session) { s.Roles, s.Scope = s.Scope, s.Roles })
			sameListOrNil(t, "Update: Roles", got.Roles, list)
		}
	}},
	{"Extra holds any JSON", func(t *testing.T, e *env) {
		given := e.session("ann")
		given.Extra = map[string]any{
			"text": "é \u2028 <&> \" \\ 🎫", "number": 12.5, "whole": 1 << 40, "yes": true, "null": nil,
			"": "empty name", "list": []any{1, "two", nil, []any{}}, "deep": map[string]any{"a": map[string]any{"b": "c"}},
		}
		e.insert(given)
		sameExtra(t, "Extra", e.snapshot(given.ID).Session.Extra, given.Extra)
	}},
	{"Extra that is no JSON is refused", func(t *testing.T, e *env) {
		given := e.session("ann")
		given.Extra = map[string]any{"channel": make(chan int)}
		if _, err := e.sessions.Insert(e.ctx, given); err == nil {
			t.Error("Insert: got no error")
		}
		s := e.start("ann")
		_, _, err := e.sessions.Update(e.ctx, s.ID, retain, func(row *counterfoil.Session) (bool, error) {
			row.Extra = given.Extra
			return true, nil
		})
		if err == nil {
			t.Error("Update: got no error")
		}
		sameSession(t, "after a refused Update", e.snapshot(s.ID).Session, s)
		e.wantLogged(0, nil)
	}},
	{"Texts are kept exactly", func(t *testing.T, e *env) {
		long := func(n int) string { return strings.Repeat("ab£🎫", n)[:n*8] } // 8 bytes each
		for _, text := range []string{
			`'; DROP TABLE sessions; --`, `"quoted"`, "back\\slash", "per%cent_under", "$1 ?1 :name @p {}", "null", "NULL", "[]",
			" space around ", "Zoë", "Zoe\u0308", "ẞ ß ss", "İstanbul", "中文 العربية", "👩\u200d👩\u200d👧", "line\nbreak\ttab\r", "a/b?c#d", long(30),
		} {
			given := e.session(text)
			given.ClientID, given.Device.IP, given.Methods = text, text, []string{text, text}
			given.Roles, given.Extra = []string{text}, map[string]any{text: text}
			given.Device.UserAgent = text + long(900)
			given.Epoch0 = e.insert(given).Epoch0
			sameSession(t, "Snapshot", e.snapshot(given.ID).Session, given)

			r := endRequest(given.ID)
			r.Subject, r.End = text, counterfoil.End{Reason: counterfoil.Reason(text), Actor: text}
			ended, err := e.sessions.End(e.ctx, r)
			e.must("End", err)
			r.End.At = e.clock.now()
			sameEnd(t, "End", ended.Session.End, &r.End)

			a := signOut(text)
			a.End, a.Rights = r.End, &counterfoil.Rights{Roles: []string{text}, Scope: []string{text}}
			done := e.advance(a)
			sameSubject(t, "Subject", e.subject(text), done.Subject)
			sameText(t, "the entry's ID", done.Revocation.ID, text)
			sameRights(t, "Rights", done.Subject.Rights, *a.Rights)
			page, _, err := e.sessions.List(e.ctx, counterfoil.ListQuery{Subject: text, ClientID: text, Limit: 10})
			e.must("List", err)
			if len(page) != 1 || page[0].ID != given.ID {
				t.Errorf("List of subject %q: got %d sessions, want its one", text, len(page))
			}
		}
	}},
	{"Subjects that look alike are different", func(t *testing.T, e *env) {
		alike := []string{"ann", "Ann", "ANN", "ann ", " ann", "änn", "a\u0308nn", "ann%", "an_", "1", "01", "1.0"}
		for _, subject := range alike {
			e.start(subject)
		}
		e.advance(signOut("ann"))
		for _, subject := range alike {
			page, _, err := e.sessions.List(e.ctx, counterfoil.ListQuery{Subject: subject, Limit: 100})
			e.must("List", err)
			if len(page) != 1 {
				t.Fatalf("subject %q: got %d sessions, want one", subject, len(page))
			}
			if ended := page[0].End != nil; ended != (subject == "ann") {
				t.Errorf("ann was signed out; session of %q ended: %t", subject, ended)
			}
		}
	}},
	{"IDs that differ in letter case only are different", func(t *testing.T, e *env) {
		lower, upper := e.session("ann"), e.session("ann")
		shard := opaque.Shard("ann")
		lower.ID, upper.ID = shard+"abcdefghijklmnopqrstuv", shard+"ABCDEFGHIJKLMNOPQRSTUV"
		e.insert(lower)
		_, err := e.sessions.Snapshot(e.ctx, upper.ID)
		e.wantErr("Snapshot of the other case", err, counterfoil.ErrNotFound)
		e.insert(upper)
		e.end(lower.ID)
		e.wantActive(upper.ID, "only the other was ended")
	}},
	{"A text that cannot be kept is refused, never changed", func(t *testing.T, e *env) {
		for _, text := range []string{"nul\x00here", "\x00", "not utf-8 \xff\xfe", "half \xed\xa0\x80"} {
			given := e.session("subject " + text)
			given.Device.UserAgent = text
			if _, err := e.sessions.Insert(e.ctx, given); err != nil {
				_, err = e.sessions.Snapshot(e.ctx, given.ID)
				e.wantErr("Snapshot after a refused Insert", err, counterfoil.ErrNotFound)
			} else {
				got := e.snapshot(given.ID).Session
				sameText(t, "Subject", got.Subject, given.Subject)
				sameText(t, "UserAgent", got.Device.UserAgent, text)
			}
			s := e.start("ann")
			r := endRequest(s.ID)
			r.End.Actor = text
			if _, err := e.sessions.End(e.ctx, r); err != nil {
				e.wantActive(s.ID, "its End was refused")
			} else {
				sameEnd(t, "End", e.snapshot(s.ID).Session.End, &counterfoil.End{Reason: r.End.Reason, Actor: text, At: e.clock.now()})
			}
		}
	}},
}
