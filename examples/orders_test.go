package examples_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A second service with a process of its own: it verifies without asking,
// asks where a route is careful, and goes on when nobody can be asked.
func TestOrders(t *testing.T) {
	auth := startAuthority(t, "--audience", "orders,billing", "--token-lifetime", "5m")
	cache := filepath.Join(t.TempDir(), "keys")
	run := func() (service *process, url string) {
		service = start(t, []string{
			"COUNTERFOIL_ISSUER=" + issuer, "COUNTERFOIL_AUTHORITY=" + auth.url, "COUNTERFOIL_CACHE=" + cache,
			"COUNTERFOIL_API_KEY=" + auth.apiKey("--name", "orders", "--scope", "verify"),
		}, build(t, "examples/orders"), "--listen", "127.0.0.1:0")
		return service, service.says(`orders on (http://\S+)`)
	}
	service, url := run()
	orders := func(token string) answer {
		t.Helper()
		return call(t, "GET", url+"/orders", nil, "Authorization", "Bearer "+token)
	}
	remove := func(token string) answer {
		t.Helper()
		return call(t, "DELETE", url+"/account", nil, "Authorization", "Bearer "+token)
	}
	signIn := func(more object) answer {
		t.Helper()
		body := object{"subject": "ann", "amr": []string{"pwd"}}
		for name, value := range more {
			body[name] = value
		}
		return auth.post("/v1/sessions", body).want(t, 201, "")
	}

	first := signIn(nil)
	if got := orders(first.AccessToken).want(t, 200, ""); got.Subject != "ann" || !strings.Contains(got.Text, "a lamp") {
		t.Error(got.Text)
	}
	call(t, "GET", url+"/readyz", nil).want(t, 200, "")

	call(t, "GET", url+"/orders", nil).want(t, 401, "credential_missing")
	orders(first.AccessToken[1:]).want(t, 401, "token_invalid")
	orders(first.SessionToken).want(t, 401, "token_invalid")
	forBilling := call(t, "POST", auth.url+"/v1/auth/refresh", object{"audience": "billing"}, "Authorization", "Bearer "+first.SessionToken).want(t, 200, "")
	orders(forBilling.AccessToken).want(t, 403, "audience_mismatch")

	// The careful route wants a recent sign-in, and says so.
	old := signIn(object{"auth_time": time.Now().Add(-time.Hour).Unix()})
	orders(old.AccessToken).want(t, 200, "")
	challenge := remove(old.AccessToken).want(t, 401, "insufficient_user_authentication").Header.Get("WWW-Authenticate")
	if !strings.Contains(challenge, "max_age=600") && !strings.Contains(challenge, `max_age="600"`) {
		t.Errorf("challenge %q", challenge)
	}

	// Ended: the careful route asks, and the local one has heard of it.
	ended := signIn(nil)
	call(t, "DELETE", auth.url+"/v1/sessions/"+ended.Session.SID, nil, "Authorization", "Bearer "+auth.key).want(t, 204, "")
	remove(ended.AccessToken).want(t, 401, "token_revoked")
	for began := time.Now(); orders(ended.AccessToken).Status == 200 && time.Since(began) < 5*time.Second; {
	}
	orders(ended.AccessToken).want(t, 401, "token_revoked")

	// The authority is down: local verification goes on, careful routes refuse.
	auth.stop()
	orders(first.AccessToken).want(t, 200, "")
	remove(first.AccessToken).want(t, 503, "unavailable")

	// A restart of the service meanwhile: the keys are in the cache file.
	service.stop()
	if info, err := os.Stat(cache); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("cache file: %v, %v", info, err)
	}
	_, url = run()
	call(t, "GET", url+"/readyz", nil).want(t, 200, "")
	orders(first.AccessToken).want(t, 200, "")
	remove(first.AccessToken).want(t, 503, "unavailable")
	if got := orders(first.AccessToken).Text; !strings.Contains(got, "a lamp") {
		t.Errorf("the refused call did something: %s", got)
	}

	auth.again()
	remove(first.AccessToken).want(t, 204, "")
	if got := orders(first.AccessToken).want(t, 200, "").Text; strings.Contains(got, "a lamp") {
		t.Errorf("still there: %s", got)
	}
}

// The embedding example as it is started by hand.
func TestEmbedRuns(t *testing.T) {
	p := start(t, nil, build(t, "examples/embed"), "--listen", "127.0.0.1:0")
	url := p.says(`open (http://\S+)`)
	if got := call(t, "GET", url+"/", nil); got.Status != 401 || !strings.Contains(got.Text, "<h1>Sign in</h1>") {
		t.Errorf("%d %s", got.Status, got.Text)
	}
}
