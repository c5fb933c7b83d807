package pages_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/internal/passkeytest"
)

// create makes a passkey by the ceremony for the purpose.
func (b *browser) create(device *passkeytest.Authenticator, pairs ...string) string {
	b.Helper()
	options, p := b.options(pairs...)
	p.is(http.StatusOK)
	credential, err := device.Create(options, nil)
	b.must(err)
	return string(credential)
}

func (b *browser) use(device *passkeytest.Authenticator, purpose string) string {
	b.Helper()
	options, p := b.options("for", purpose)
	p.is(http.StatusOK)
	credential, err := device.Get(options, nil)
	b.must(err)
	return string(credential)
}

func TestPasskeys(t *testing.T) {
	a := setup(t)
	device := passkeytest.New(issuer)
	b := a.browser("")
	b.get("/account/sign-up").is(200, "Create it with a passkey")
	made := b.create(device, "for", "sign-up", "email", ada)
	b.post("/account/sign-up", form("email", ada, "credential", made, "next", "/orders")).is(200, "orders of")
	b.get("/account/devices").is(200, "with a passkey")
	b.get("/account/password").is(200, "This account has no password")
	b.get("/account/passkeys").is(200, "Passkey 1", "It is your only way to sign in")
	id := b.get("/account/passkeys").forms("rename-passkey")[0].Get("id")
	b.post("/account/remove-passkey", form("id", id)).is(409, "the last way to sign in")

	// Sign in with it, in another browser; the answer is good once.
	phone := a.browser(iphone)
	used := phone.use(device, "sign-in")
	phone.post("/account/sign-in", form("credential", used, "next", "/orders")).is(200, "orders of")
	phone.post("/account/sign-in", form("credential", used)).is(400, "Try again.")
	a.browser("").post("/account/sign-in", form("credential", used)).is(400, "Try again.")
	a.browser("").post("/account/sign-in", form("credential", "{}")).is(400, "Try again.")

	// SEC-18: another passkey, its name and its removal want a fresh proof.
	a.later(20 * time.Minute)
	second := passkeytest.New(issuer)
	_, p := b.options("for", "add")
	if p.status != 401 || !strings.Contains(p.text, `"go":"step-up?next=passkeys"`) {
		t.Errorf("a passkey without a fresh proof: %d %s", p.status, p.text)
	}
	p = b.post("/account/rename-passkey", form("id", id, "name", "My laptop")).is(401, "Confirm that it is you", "What you sent waits here")
	p = p.submit("step-up", "credential", b.use(device, "step-up")).is(200, "goes on now")
	p.submit("rename-passkey").is(200, "The passkey has its new name.", "My laptop")
	b.post("/account/passkeys", form("credential", b.create(second, "for", "add"), "name", "Blue key")).
		is(200, "The passkey was added.", "Blue key", "not yet")
	b.post("/account/rename-passkey", form("id", id, "name", "")).is(400, "The name is required.")
	phone.get("/account/devices").is(200, "this device")
	b.post("/account/remove-passkey", form("id", id)).is(200, "The passkey was removed.", "Blue key").isNot("My laptop")
	phone.get("/account/devices").is(200, "A passkey of this account was removed")
	phone.post("/account/sign-in", form("credential", phone.use(device, "sign-in"))).is(401, "This passkey is not known here")
	phone.post("/account/sign-in", form("credential", phone.use(second, "sign-in"))).is(200, "this device")
	b.post("/account/remove-passkey", form("id", id)).is(404, "There is no such passkey any more.")

	_, p = a.browser("").options("for", "sign-up", "email", ada)
	p.is(http.StatusConflict, "has an account already")
	_, p = a.browser("").options("for", "add")
	p.is(401, `"go":"signed-out?next=passkeys"`)
	_, p = b.options("for", "something")
	p.is(400)
	_, p = a.signedUp("bob@example.com").options("for", "step-up")
	p.is(404, "Passkeys cannot be used")
}

// A step-up with the passkey of somebody else is none.
func TestStepUpWithAnothersPasskey(t *testing.T) {
	a := setup(t)
	mine, theirs := passkeytest.New(issuer), passkeytest.New(issuer)
	b, eve := a.signedUp(ada), a.signedUp("eve@example.com")
	b.post("/account/passkeys", form("credential", b.create(mine, "for", "add"))).is(200, "Passkey 1")
	eve.post("/account/passkeys", form("credential", eve.create(theirs, "for", "add"))).is(200, "Passkey 1")
	options, _ := b.options("for", "step-up")
	credential, err := theirs.Get(options, nil)
	a.must(err)
	b.post("/account/step-up", form("credential", string(credential))).is(401, "This passkey is not known here")
	var challenge struct{ Challenge string }
	a.must(json.Unmarshal(options, &challenge))
	if challenge.Challenge == "" {
		t.Error("the options have no challenge")
	}
}

// At an address that is no host name there are none, and the pages say so.
func TestPasskeysOff(t *testing.T) {
	a := setupAt(t, "/account", onAddress)
	b := a.signedUp(ada)
	b.get("/account/passkeys").is(200, "they want a host name")
	a.browser("").get("/account/sign-in").is(200).isNot("passkey")
	_, p := b.options("for", "sign-in")
	p.is(404, "Passkeys cannot be used")
}
