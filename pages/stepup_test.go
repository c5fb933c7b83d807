package pages_test

import (
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
)

func (b *browser) paidWith(path, body string) {
	b.Helper()
	got := b.paid.Swap(nil)
	if got == nil || !reflect.DeepEqual(*got, []string{path, body}) {
		b.Errorf("POST /pay was sent %v, want %s with %s", got, path, body)
	}
}

func TestStepUpRepeatsTheBlockedRequest(t *testing.T) {
	a := setup(t)
	b := a.signedUp(ada)
	b.get("/vault").is(200, "orders of")
	a.later(20 * time.Minute)

	// A GET by redirect.
	p := b.get("/vault?door=2&key=%26").is(200, "Confirm that it is you", "The last one was 20 min ago", "/vault")
	before := b.cookie(cookie).Value
	p = p.submit("step-up", "password", newWord).is(401, "The password is not right.")
	p.submit("step-up", "password", word).is(200, "orders of", "/vault?door=2&key=%26")
	if b.cookie(cookie).Value == before {
		t.Error("SEC-12: the session token was not replaced")
	}

	// A form by carrying it along: order, repetition and signs stay.
	const order = "b=1&a=%C3%BC+%26&b=2&password=theirs&next=%2Fevil&empty="
	a.later(20 * time.Minute)
	p = b.do(http.MethodPost, "/pay?to=bob", order).is(401, "Confirm that it is you", "goes on to /pay")
	if a.paid.Load() != nil {
		t.Fatal("paid without a proof")
	}
	p = p.submit("step-up", "password", newWord).is(401, "The password is not right.", "goes on to /pay")
	p = p.submit("step-up", "password", word).is(200, "What you had sent goes on now.")
	if got := p.header.Get("Content-Security-Policy"); !strings.Contains(got, "form-action 'self' https:;") {
		t.Errorf("the policy of the repetition: %s", got)
	}
	fields := p.forms("/pay?to=bob")[0]
	if !reflect.DeepEqual(map[string][]string(fields), map[string][]string{
		"b": {"1", "2"}, "a": {"ü &"}, "password": {"theirs"}, "next": {"/evil"}, "empty": {""},
	}) {
		t.Errorf("the form is sent again with %v", fields)
	}
	b.do(http.MethodPost, "/pay?to=bob", order).is(200, "paid")
	b.paidWith("/pay?to=bob", order)

	b.get("/account/devices").is(200, "confirmed just now")
}

func TestStepUpWhatCannotBeCarried(t *testing.T) {
	a := setup(t)
	b := a.signedUp(ada)
	a.later(20 * time.Minute)
	lost := "What you sent cannot wait here"
	file := []string{"Content-Type", "multipart/form-data; boundary=x", "Referer", a.URL + "/vault?open"}
	p := b.do(http.MethodPost, "/pay", "--x\r\n\r\n--x--", file...).is(200, lost)
	p.submit("step-up", "password", word).is(200, "/vault?open") // to the page with the form
	a.later(20 * time.Minute)
	b.do(http.MethodPost, "/pay", "a="+strings.Repeat("b", 16<<10)).is(200, lost)
	b.do(http.MethodPost, "/pay", "a="+strings.Repeat("b", 16<<10-2)).is(401, "waits here")
	b.do(http.MethodPost, "/pay", "a=%zz").is(401, lost)
	b.do(http.MethodPost, "/account/step-up?next=/pay", "a="+strings.Repeat("b", 20<<10)).is(401, lost)
	b.do(http.MethodPost, "/account/step-up?next=//evil.example", "a=b").is(401, lost)
	b.do(http.MethodPost, "/account/step-up?next=sign-in", "a=b").is(401, lost)
	if a.paid.Load() != nil {
		t.Error("paid without a proof")
	}
	// A form may not be sent anywhere else, whatever our own form says.
	for _, next := range []string{"//evil.example/", "https://evil.example/", "sign-in", "step-up", "javascript:alert(1)"} {
		p := b.still().post("/account/step-up", form("password", word, "repeat", "a=b", "subject", b.session().Subject, "next", next)).is(http.StatusSeeOther)
		if got := p.header.Get("Location"); got != "devices" {
			t.Errorf("next %q leads to %q", next, got)
		}
	}
}

// What scripts send is answered as before: with problem+json.
func TestScriptsGetProblems(t *testing.T) {
	a := setup(t)
	b := a.signedUp(ada)
	script := []string{"Sec-Fetch-Mode", "cors", "Accept", "*/*"}
	old := []string{"Sec-Fetch-Mode", "", "Accept", "application/json"}
	stranger := a.browser("")
	a.later(20 * time.Minute)
	for _, headers := range [][]string{script, old} {
		for _, c := range []struct {
			p    *page
			code string
		}{
			{stranger.get("/orders", headers...), "credential_missing"},
			{b.get("/vault", headers...), "insufficient_user_authentication"},
			{b.do(http.MethodPost, "/pay", "a=b", headers...), "insufficient_user_authentication"},
		} {
			if c.p.status != 401 || !strings.Contains(c.p.text, `"code":"`+c.code+`"`) || c.p.header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("%v: %d %s", headers, c.p.status, c.p.text)
			}
		}
	}
	page := []string{"Sec-Fetch-Mode", "", "Accept", "text/html"}
	stranger.get("/orders", page...).is(200, "Sign in")
}

// A form that comes after the session's end leads back to the page with it.
func TestFormAfterTheEnd(t *testing.T) {
	a := setup(t)
	p := a.browser("").still().do(http.MethodPost, "/pay", "a=b", "Referer", a.URL+"/orders?page=2").is(http.StatusSeeOther)
	if got := p.header.Get("Location"); got != "/account/sign-in?next=%2Forders%3Fpage%3D2" {
		t.Errorf("leads to %s", got)
	}
	p = a.browser("").still().do(http.MethodPost, "/pay", "a=b", "Referer", "https://evil.example/orders").is(http.StatusSeeOther)
	if got := p.header.Get("Location"); got != "/account/sign-in" {
		t.Errorf("leads to %s", got)
	}

	// Ended between the refusal and the step-up, or while that was open.
	b := a.signedUp(ada)
	a.later(20 * time.Minute)
	open := b.do(http.MethodPost, "/pay", "a=b").is(401)
	a.must(a.auth.RevokeSession(t.Context(), b.session().ID, counterfoil.Revoked))
	p = b.still().do(http.MethodPost, "/account/step-up?next=/pay", "a=b", "Referer", a.URL+"/orders").is(http.StatusSeeOther)
	if got := p.header.Get("Location"); got != "signed-out?next=%2Forders" {
		t.Errorf("leads to %s", got)
	}
	open.submit("step-up", "password", word).is(200, "You are signed out", "by those who run this service")
}

// What one user had sent is not sent again as another, who signed in in this
// browser while the step-up was open.
func TestFormOfAnotherUser(t *testing.T) {
	a := setup(t)
	a.signedUp("eve@example.com")
	b := a.signedUp(ada)
	a.later(20 * time.Minute)
	open := b.do(http.MethodPost, "/pay?to=bob", "a=b").is(401, "waits here")
	b.post("/account/sign-in", form("email", "eve@example.com", "password", word)).is(200, "Your devices")
	before := b.cookie(cookie).Value
	open.submit("step-up", "password", word).is(http.StatusConflict, "Somebody else has signed in").isNot("/pay")
	if b.cookie(cookie).Value != before {
		t.Error("the proof was taken")
	}

	// The same user in a new session may go on.
	b.post("/account/sign-in", form("email", ada, "password", word)).is(200, "Your devices")
	open.submit("step-up", "password", word).is(200, "What you had sent goes on now.").forms("/pay?to=bob")
}
