package pages_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
	"github.com/counterfoil/counterfoil/pages"
)

const iphone = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1"

func TestDevices(t *testing.T) {
	a := setup(t)
	laptop := a.signedUp(ada)
	a.later(12 * time.Second)
	phone := a.signedIn(ada, iphone)
	tablet := a.signedIn(ada, "Mozilla/5.0 (Linux; Android 14; SM-X910) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36")
	a.later(17 * time.Second)
	p := laptop.get("/account/devices").is(200, "Firefox on Linux this device last active now signed in 29 s ago , with a password",
		"Safari on iPhone last active 17 s ago", "Chrome on Android", "127.0.0.1", "End all other devices")
	if strings.Count(p.words(), "this device last active") != 1 {
		t.Error("not one device is marked")
	}
	if !strings.Contains(p.text, `title="`+laptop.session().CreatedAt.UTC().Format("2 January 2006, 15:04:05 UTC")+`"`) {
		t.Error("the exact time is not there")
	}

	sid := phone.session().ID
	laptop.post("/account/end-device", form("sid", sid)).is(200, "The device was signed out.").isNot("iPhone")
	laptop.get("/account/devices").isNot("The device was signed out.") // said once
	phone.get("/orders").is(200, "You are signed out", "from another of your devices")
	laptop.post("/account/end-device", form("sid", sid)).is(200, "The device was signed out.") // as it had been
	laptop.post("/account/end-device", form("sid", "x")).is(200, "had been signed out already")

	// SEC-108: another user's device does not exist.
	eve := a.signedUp("eve@example.com")
	eve.post("/account/end-device", form("sid", tablet.session().ID)).is(200, "had been signed out already")
	tablet.get("/account/devices").is(200, "this device")

	laptop.post("/account/end-others", nil).is(200, "All other devices were signed out.", "No other device is signed in.")
	tablet.get("/account/devices").is(200, "You are signed out")
	eve.get("/account/devices").is(200, "this device")
	laptop.post("/account/end-device", form("sid", laptop.session().ID)).is(200, "You are signed out")
	if laptop.cookie(cookie) != nil {
		t.Error("the cookie is there after this device was ended")
	}
}

// A page that somebody opens is use, which slides the idle expiry.
func TestUseIsNoted(t *testing.T) {
	a := setup(t)
	b := a.signedUp(ada)
	noted := func() (refreshes uint64, touches int) {
		for _, node := range a.nodes {
			s := node.Stats()
			refreshes += s.Refreshes.OK
			touches += s.TouchesPending + int(s.Touches)
		}
		return refreshes, touches
	}
	refreshes, touches := noted()
	b.get("/account/devices").is(200, "this device")
	if now, _ := noted(); now != refreshes {
		t.Error("noted although the last use is fresh")
	}
	a.later(6 * 24 * time.Hour)
	b.get("/account/devices").is(200, "this device")
	if _, now := noted(); now == touches {
		t.Error("the use of the session was not noted")
	}
}

func TestManyDevices(t *testing.T) {
	a := setup(t)
	b := a.signedUp(ada)
	for range 60 {
		_, err := a.auth.StartSession(t.Context(), counterfoil.SignIn{Subject: b.session().Subject, Methods: []string{"otp"}})
		a.must(err)
	}
	p := b.get("/account/devices").is(200, "this device", "An unknown device", "with a one-time code")
	b.get("/account/"+linkOf(p, "More devices")).is(200, "An unknown device", "The first ones", "End all other devices").isNot("this device")
	b.get("/account/devices?after=nonsense").is(404, "There is no page")
}

func TestChangePassword(t *testing.T) {
	a := setup(t)
	laptop := a.signedUp(ada)
	phone := a.signedIn(ada, iphone)
	stolen := laptop.cookie(cookie).Value
	laptop.post("/account/password", form("current", newWord, "new", newWord)).is(401, "The present password is not right.")
	laptop.post("/account/password", form("current", word, "new", "short")).is(400, "The new password must have at least 15")
	phone.get("/account/devices").is(200, "this device")
	laptop.post("/account/password", form("current", word, "new", newWord)).is(200, "The password was changed. All other devices were signed out.")
	phone.get("/account/devices").is(200, "changed on another device")
	if laptop.cookie(cookie).Value == stolen {
		t.Error("the session token was not replaced")
	}
	a.browser("").get("/account/devices", "Cookie", cookie+"="+stolen).is(200, "You are signed out")
	a.browser("").post("/account/sign-in", form("email", ada, "password", newWord)).is(200, "Your devices")
}

// outbox is a mail server that the test reads.
type outbox struct {
	mu    sync.Mutex
	links map[string]string
	sent  chan string
}

func (o *outbox) send(_ context.Context, u directory.User, link string) error {
	o.mu.Lock()
	o.links[u.Email] = link
	o.mu.Unlock()
	o.sent <- u.Email
	return nil
}

func TestResetPassword(t *testing.T) {
	box := &outbox{links: map[string]string{}, sent: make(chan string, 10)}
	a := setup(t, pages.WithSendReset(issuer+"/account/", box.send))
	laptop := a.signedUp(ada)
	b := a.browser("")
	p := b.get("/account/forgot-password").is(200, "We send a link")
	known := p.submit("forgot-password", "email", ada).is(200, "If there is an account with the address "+ada)
	// SEC-91: an unknown address gets the same page.
	unknown := b.post("/account/forgot-password", form("email", "adb@example.com"))
	if got := strings.ReplaceAll(unknown.text, "adb@", "ada@"); got != known.text || unknown.status != known.status {
		t.Errorf("SEC-91: the answers differ:\n%s\n%s", known.text, unknown.text)
	}
	b.post("/account/forgot-password", form("email", "ada")).is(400, "must have the form")
	if got := <-box.sent; got != ada {
		t.Fatalf("mail to %s", got)
	}
	link, token, ok := strings.Cut(box.links[ada], "#")
	// SEC-87: the host is that of the configuration; the token is behind the #.
	if !ok || link != issuer+"/account/reset-password" || !strings.HasPrefix(token, "cf_pr_") {
		t.Fatalf("the link is %s#%.6s…", link, token)
	}
	b.get("/account/reset-password?token=" + token).is(200) // not taken from there, and not repeated (the harness looks)
	b.post("/account/reset-password", form("token", token, "new", "short")).is(400, "The new password must have")
	// Pasted as a whole, with spaces around.
	b.post("/account/reset-password", form("token", "  "+link+"#"+token+" ", "new", newWord)).is(200, "The new password is set", "Sign in")
	laptop.get("/account/devices").is(200, "was reset by a link")
	b.post("/account/reset-password", form("token", token, "new", newWord)).is(400, "not good any more")
	b.post("/account/sign-in", form("email", ada, "password", newWord)).is(200, "Your devices")
	a.browser("").post("/account/sign-in", form("email", ada, "password", word)).is(401)

	// Asking again and again is slowed down, for unknown addresses as for known ones.
	for _, email := range []string{ada, "adc@example.com"} {
		for range 6 {
			p = b.post("/account/forgot-password", form("email", email))
		}
		p.is(http.StatusTooManyRequests, "Too many attempts. Wait")
	}
}

func TestForgotWithoutMail(t *testing.T) {
	a := setup(t, pages.WithHelp("Ring 555 0100."))
	a.browser("").get("/account/forgot-password").is(200, "cannot send you a link", "Ring 555 0100.")
	a.browser("").post("/account/forgot-password", form("email", ada)).is(404)
	setup(t, pages.WithName("Harbour")).browser("").get("/account/forgot-password").is(200, "Ask those who run Harbour")
}

func TestMailThatFails(t *testing.T) {
	called := make(chan bool, 2)
	a := setup(t, pages.WithSendReset(issuer+"/account", func(context.Context, directory.User, string) error {
		defer func() { called <- true }()
		panic("no mail today")
	}))
	a.signedUp(ada)
	a.browser("").post("/account/forgot-password", form("email", ada)).is(200, "If there is an account")
	<-called
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(a.logs.String(), "no mail today"); {
		if time.Now().After(deadline) {
			t.Fatal("the failure is not in the log")
		}
		a.browser("").get("/account/sign-in")
	}
}
