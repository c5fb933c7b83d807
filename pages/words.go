package pages

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
)

// moment is a time as people read it, with the exact one beside it.
type moment struct {
	Ago   string // "12 s ago"
	Exact string // "22 November 2026, 14:05:09 UTC"
	ISO   string // for machines
}

func at(t, now time.Time) moment {
	if t.IsZero() {
		return moment{}
	}
	t = t.UTC()
	return moment{ago(now.Sub(t), t), t.Format("2 January 2006, 15:04:05 UTC"), t.Format(time.RFC3339)}
}

func ago(d time.Duration, t time.Time) string {
	switch {
	case d < 5*time.Second:
		return "just now"
	case d < time.Minute:
		return fmt.Sprintf("%d s ago", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", d/time.Minute)
	case d < 24*time.Hour:
		return fmt.Sprintf("%d h ago", d/time.Hour)
	case d < 48*time.Hour:
		return "yesterday"
	case d < 14*24*time.Hour:
		return fmt.Sprintf("%d days ago", d/(24*time.Hour))
	}
	return "on " + t.Format("2 January 2006")
}

// lasting is a length of time in words.
func lasting(d time.Duration) string {
	for _, unit := range []struct {
		size time.Duration
		name string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}} {
		if n := d / unit.size; n >= 2 || n == 1 && d == unit.size {
			if n == 1 {
				return "1 " + unit.name
			}
			return fmt.Sprintf("%d %ss", n, unit.name)
		}
	}
	return "a moment"
}

// stays says how long a sign-in lasts.
func stays(l counterfoil.Lifetimes) string {
	return fmt.Sprintf("You stay signed in on this device until you sign out, for %s at most. It ends by itself after %s without use.", lasting(l.Absolute), lasting(l.Idle))
}

// how says in plain words how a user signed in (amr, RFC 8176).
func how(methods []string) string {
	has := func(names ...string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return slices.Contains(methods, n) })
	}
	var ways []string
	if has("hwk", "swk", "pop", "webauthn", "passkey", "phr", "phrh") {
		ways = append(ways, "a passkey")
	}
	if has("pwd") {
		ways = append(ways, "a password")
	}
	if has("otp", "sms", "tel") {
		ways = append(ways, "a one-time code")
	}
	if has("fed") {
		ways = append(ways, "another account")
	}
	if len(ways) == 0 {
		return "in another way"
	}
	return "with " + strings.Join(ways, " and ")
}

// reason is what is said of the end of a session.
type reason struct {
	stamp string
	text  string
	ask   bool // it was not the user: say whom to ask
}

var reasons = map[counterfoil.Reason]reason{
	counterfoil.SignedOut:           {"signed out", "You signed out on this device.", false},
	counterfoil.SignedOutEverywhere: {"signed out", "You ended this sign-in from another of your devices. If that was not you, sign in and change the password.", false},
	counterfoil.PasswordChanged:     {"ended", "The password of this account was changed on another device, which ends all others. If that was not you, reset the password now.", true},
	counterfoil.PasswordReset:       {"ended", "The password of this account was reset by a link in an e-mail, which ends all devices. If that was not you, reset it again.", true},
	counterfoil.Disabled:            {"disabled", "This account was disabled, so nobody can sign in to it.", true},
	counterfoil.Deleted:             {"deleted", "This account was deleted.", true},
	counterfoil.Revoked:             {"ended", "This sign-in was ended by those who run this service. You can sign in again.", true},
	directory.EmailChanged:          {"ended", "The e-mail address of this account was changed. Sign in with the new one.", true},
	counterfoil.DeviceKeyMismatch:   {"ended", "Somebody used this sign-in from another device, so it was ended. Sign in again. If you did not copy it yourself, look through your devices.", true},
	directory.PasskeyWasRemoved:     {"ended", "A passkey of this account was removed on another device, which ends all others. If that was not you, sign in and look through your passkeys.", true},
	replaced:                        {"replaced", "Somebody signed in anew in this browser, and this sign-in gave way to theirs.", false},
}

// reasonOf is the page about the end of a session.
func (s *site) reasonOf(e *counterfoil.EndedError) *signedOutPage {
	page := &signedOutPage{SID: e.SessionID, Ended: at(e.EndedAt, s.auth.Now())}
	r, known := reasons[e.Reason]
	switch {
	case e.SessionID == "":
		r = reason{"unknown", "This sign-in is not known here any more. Sign in again.", false}
	case e.Reason == "":
		r = reason{"expired", "It ended by itself, because it was not used for a while or had reached its longest time. Sign in again.", false}
	case !known:
		r = reason{"ended", "This sign-in was ended. The reason given: " + strings.ReplaceAll(string(e.Reason), "_", " ") + ".", true}
	}
	if own := s.reasons[e.Reason]; own != "" {
		r.text = own
	}
	page.Stamp, page.Reason, page.Ask = r.stamp, r.text, r.ask
	return page
}
