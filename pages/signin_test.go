package pages_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
	"github.com/counterfoil/counterfoil/pages"
)

func TestSignUpSignInSignOut(t *testing.T) {
	a := setup(t, pages.WithName("Harbour"))
	b := a.browser("")
	b.get("/account/").is(200, "Sign in", "Harbour")
	b.get("/orders").is(200, "Sign in")
	b.get("/account/sign-up").is(200, "Create an account", "At least 15 characters")

	// SEC-10, SEC-07: the answer that sets the cookie.
	p := b.still().post("/account/sign-up", form("email", ada, "password", word, "next", "/orders?page=2"))
	p.is(http.StatusSeeOther)
	if got := p.header.Get("Location"); got != "/orders?page=2" {
		t.Errorf("leads to %q", got)
	}
	if got := p.header.Get("Cache-Control"); got != "private, no-store" {
		t.Errorf("Cache-Control %q", got)
	}
	set := p.header.Get("Set-Cookie")
	for _, want := range []string{cookie + "=cf_st_", "; Path=/", "; HttpOnly", "; Secure", "; SameSite=Lax"} {
		if !strings.Contains(set, want) {
			t.Errorf("SEC-07: Set-Cookie %q lacks %q", set, want)
		}
	}
	b.get("/orders?page=2").is(200, "orders of", "/orders?page=2")
	b.get("/account/sign-in?next=/orders").is(200, "This browser is signed in as "+ada, "Go on")

	// SEC-09: the session is over before the cookies are cleared.
	token := b.cookie(cookie).Value
	p = b.still().post("/account/sign-out", nil)
	p.is(http.StatusSeeOther)
	if got := p.header.Get("Clear-Site-Data"); got != `"cookies"` {
		t.Errorf("SEC-09: Clear-Site-Data %q", got)
	}
	if b.cookie(cookie) != nil {
		t.Error("SEC-09: the cookie is there after the sign-out")
	}
	if _, err := a.auth.Authenticate(t.Context(), token); !strings.Contains(err.Error(), "signed_out") {
		t.Errorf("the session after the sign-out: %v", err)
	}
	b.get("/account/signed-out").is(200, "You are signed out", "not signed in any more")
	b.post("/account/sign-out", nil).is(200, "You are signed out")

	b.post("/account/sign-in", form("email", strings.ToUpper(ada), "password", word)).is(200, "Your devices", "this device")
	b.post("/account/sign-up", form("email", ada, "password", word)).is(409, "has an account already")
}

// SEC-11: what a browser brings before a sign-in is never taken up, and ends.
func TestSEC11Fixation(t *testing.T) {
	a := setup(t)
	b := a.signedUp(ada)
	planted := b.cookie(cookie).Value
	b.post("/account/sign-in", form("email", ada, "password", word)).is(200, "Your devices")
	if now := b.cookie(cookie).Value; now == planted {
		t.Error("the planted session token is in use")
	}
	if _, err := a.auth.Authenticate(t.Context(), planted); err == nil || !strings.Contains(err.Error(), "replaced") {
		t.Errorf("the planted session: %v", err)
	}
}

// Nothing that was typed is lost, except passwords, which no page repeats.
func TestErrorsInPlainWords(t *testing.T) {
	a := setup(t)
	a.signedUp(ada)
	b := a.browser("")
	for _, c := range []struct {
		path   string
		fields []string
		status int
		want   string
	}{
		{"sign-in", []string{"email", ada, "password", newWord}, 401, "The e-mail address or the password is not right."},
		{"sign-in", []string{"email", "nobody@example.com", "password", newWord}, 401, "The e-mail address or the password is not right."},
		{"sign-in", []string{"email", "nobody", "password", newWord}, 400, "The e-mail address must have the form name@domain."},
		{"sign-in", []string{"email", ada, "password", ""}, 400, "The password is required."},
		{"sign-up", []string{"email", "eve@example.com", "password", "short"}, 400, "The password must have at least 15 characters"},
		{"sign-up", []string{"email", "eve@example.com", "password", "password1234password1234"}, 400, "The password is too easy to guess"},
		{"sign-up", []string{"email", ada, "password", newWord}, 409, "This e-mail address has an account already."},
		{"reset-password", []string{"token", "cf_pr_x", "new", newWord}, 400, "This link is not good any more"},
	} {
		p := b.post("/account/"+c.path, form(append(c.fields, "next", "/orders")...)).is(c.status, c.want, "Error: ")
		if strings.Contains(p.text, newWord) {
			t.Errorf("%s repeats the password", c.path)
		}
		list := p.forms(c.path)
		fields := list[len(list)-1]
		if c.fields[0] == "email" && (fields.Get("email") != c.fields[1] || fields.Get("next") != "/orders") {
			t.Errorf("%s: typed %v, kept %v", c.path, c.fields, fields)
		}
	}
}

// SEC-88: who guesses waits, and is told how long.
func TestRateLimit(t *testing.T) {
	a := setup(t)
	a.signedUp(ada)
	b := a.browser("")
	var p *page
	for range 12 {
		if p = b.post("/account/sign-in", form("email", "bob@example.com", "password", newWord)); p.status == http.StatusTooManyRequests {
			break
		}
	}
	p.is(http.StatusTooManyRequests, "Too many attempts. Wait", "then try again")
	if seconds, err := strconv.Atoi(p.header.Get("Retry-After")); err != nil || seconds < 1 {
		t.Errorf("Retry-After %q", p.header.Get("Retry-After"))
	}
}

// SEC-08: of two session cookies none is taken; the page offers a way out.
func TestSEC08TwoCookies(t *testing.T) {
	a := setup(t)
	b := a.signedUp(ada)
	stranger := a.browser("")
	two := cookie + "=" + b.cookie(cookie).Value + "; " + cookie + "=x"
	p := stranger.get("/account/devices", "Cookie", two).is(401, "two session cookies")
	p.forms("sign-out")
	stranger.still().post("/account/sign-out", nil, "Cookie", two).is(http.StatusSeeOther)
	b.get("/account/devices").is(200, "this device")
}

// Each reason in plain words, taken from the session that the cookie names.
func TestSignedOutBecause(t *testing.T) {
	a := setup(t, pages.WithHelp("Ring 555 0100."), pages.WithReason("moved_house", "You moved house."))
	for _, c := range []struct {
		reason counterfoil.Reason
		want   string
		help   bool
	}{
		{counterfoil.SignedOut, "You signed out on this device.", false},
		{counterfoil.SignedOutEverywhere, "from another of your devices", false},
		{counterfoil.PasswordChanged, "password of this account was changed on another device", true},
		{counterfoil.PasswordReset, "was reset by a link", true},
		{counterfoil.Disabled, "was disabled", true},
		{counterfoil.Deleted, "was deleted", true},
		{counterfoil.Revoked, "by those who run this service", true},
		{counterfoil.DeviceKeyMismatch, "from another device", true},
		{directory.EmailChanged, "e-mail address of this account was changed", true},
		{directory.PasskeyWasRemoved, "A passkey of this account was removed", true},
		{"moved_house", "You moved house.", true},
		{"fire_drill", "The reason given: fire drill.", true},
	} {
		t.Run(string(c.reason), func(t *testing.T) {
			email := string(c.reason) + "@example.com"
			b := a.signedUp(email)
			s := b.session()
			a.must(a.auth.RevokeSession(t.Context(), s.ID, c.reason))
			p := b.get("/orders?page=3").is(200, "You are signed out", c.want, s.ID, "It ended just now")
			if got := strings.Contains(p.words(), "Ring 555 0100."); got != c.help {
				t.Errorf("says whom to ask: %v", got)
			}
			// A link cannot change what is said.
			b.get("/account/signed-out?reason=account_deleted&error=x").is(200, c.want).isNot("account deleted")
			if b.cookie(cookie) == nil {
				t.Error("the cookie is gone: only sign-out clears it")
			}
			if c.reason == counterfoil.Disabled || c.reason == counterfoil.Deleted {
				return
			}
			link := linkOf(p, "Sign in")
			p = b.get("/account/"+link).is(200, "Sign in")
			p.submit("sign-in", "email", email, "password", word).is(200, "orders of", "/orders?page=3")
		})
	}
	t.Run("expired", func(t *testing.T) {
		b := a.signedUp("sleeper@example.com")
		a.later(8 * 24 * time.Hour)
		b.get("/account/devices").is(200, "It ended by itself")
	})
	t.Run("unknown", func(t *testing.T) {
		a.browser("").get("/account/signed-out", "Cookie", cookie+"=cf_st_x").is(200, "not known here any more")
	})
}

func linkOf(p *page, words string) string {
	p.Helper()
	for n := range p.root.Descendants() {
		if n.Data == "a" && n.FirstChild != nil && strings.TrimSpace(n.FirstChild.Data) == words {
			href, _ := attr(n, "href")
			return href
		}
	}
	p.Fatalf("%s has no link %q", p.at, words)
	return ""
}
