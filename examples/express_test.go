package examples_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const password = "a quiet orchid on a ladder"

// nodeModules is the folder in which make test has run npm ci.
func nodeModules(t *testing.T) string {
	t.Helper()
	const name = "COUNTERFOIL_TEST_NODE_MODULES"
	dir := os.Getenv(name)
	if dir == "" {
		if os.Getenv("COUNTERFOIL_TEST_ALL") == "1" {
			t.Fatalf("%s is not set", name)
		}
		t.Skipf("%s is not set: run make test", name)
	}
	return filepath.Join(dir, "node_modules")
}

// startExpress runs a copy of the example beside the packages of the tests,
// which are of the same versions.
func startExpress(t *testing.T, auth *authority) (url string) {
	t.Helper()
	modules, dir := nodeModules(t), t.TempDir()
	for _, name := range []string{"package.json", "server.js", "counterfoil.js", "verify.js", "users.js", "problem.js", "public"} {
		from, err := filepath.Abs(filepath.Join("express", name))
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), data, 0o600)
		} else {
			err = os.CopyFS(filepath.Join(dir, name), os.DirFS(from))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	node := start(t, []string{
		"COUNTERFOIL_AUTHORITY=" + auth.url, "COUNTERFOIL_ISSUER=" + issuer, "COUNTERFOIL_API_KEY=" + auth.key, "PORT=0",
	}, "node", filepath.Join(dir, "server.js"))
	return node.says(`express on (http://\S+)`)
}

// tampered is the token with another subject.
func tampered(token string) string {
	i := strings.Index(token, ".") + 20
	c := byte('A')
	if token[i] == c {
		c = 'B'
	}
	return token[:i] + string(c) + token[i+1:]
}

// A Node application with its own login, and a real authority.
func TestExpress(t *testing.T) {
	auth := startAuthority(t, "--audience", "app,billing", "--token-lifetime", "5m", "--trusted-proxies", "127.0.0.1,::1")
	url := startExpress(t, auth)
	call := func(method, path string, body any, header ...string) answer {
		t.Helper()
		return call(t, method, url+path, body, append(header, "User-Agent", "laptop")...)
	}
	routes := []string{"/orders", "/profile"} // jsonwebtoken, jose

	ann := object{"email": "ann@example.org", "password": password}
	call("POST", "/sign-up", object{"email": "ann@example.org", "password": "short"}).want(t, 400, "invalid_request")
	call("POST", "/sign-up", ann).want(t, 200, "")
	call("POST", "/sign-up", ann).want(t, 409, "conflict")
	call("POST", "/sign-in", object{"email": "ann@example.org", "password": "something else entirely"}).want(t, 401, "invalid_credentials")
	call("POST", "/sign-in", object{"email": "bob@example.org", "password": password}).want(t, 401, "invalid_credentials")
	call("POST", "/sign-in", object{"email": 1}).want(t, 400, "invalid_request")
	if a := call("POST", "/sign-in", nil, "Content-Type", "application/x-www-form-urlencoded"); a.Status != 400 || len(a.Header["Set-Cookie"]) > 0 {
		t.Errorf("a form, which another site could send: %d %v", a.Status, a.Header)
	}

	in := call("POST", "/sign-in", ann).want(t, 200, "")
	cookie, err := http.ParseSetCookie(in.Header.Get("Set-Cookie"))
	if err != nil || cookie.Name != "__Host-counterfoil" || !cookie.Secure || !cookie.HttpOnly || cookie.SameSite != http.SameSiteLaxMode {
		t.Fatalf("cookie %v, %v", cookie, err)
	}
	if strings.Contains(in.Text, "cf_st_") {
		t.Error("the session token is in the body, where scripts read it")
	}
	session := []string{"Cookie", cookie.Name + "=" + cookie.Value}

	// Both libraries take the access token, and only a whole one for this service.
	billing := call("POST", "/auth/refresh", object{"audience": "billing"}, session...).want(t, 200, "")
	for _, path := range routes {
		if got := call("GET", path, nil, "Authorization", "Bearer "+in.AccessToken).want(t, 200, ""); got.Subject == "" {
			t.Error(got.Text)
		}
		call("GET", path, nil).want(t, 401, "credential_missing")
		for name, token := range map[string]string{
			"tampered": tampered(in.AccessToken), "of another service": billing.AccessToken,
			"session token": cookie.Value, "garbage": "x.y.z", "no signature": in.AccessToken[:strings.LastIndex(in.AccessToken, ".")+1],
		} {
			if got := call("GET", path, nil, "Authorization", "Bearer "+token); got.Status != 401 || got.Code != "token_invalid" {
				t.Errorf("%s, %s: %d %s", path, name, got.Status, got.Text)
			}
		}
	}

	// The authority knows the device behind the proxy.
	mine := call("GET", "/auth/session", nil, session...).want(t, 200, "")
	if mine.Device.UserAgent != "laptop" || mine.Device.IP == "" {
		t.Errorf("device: %s", mine.Text)
	}
	// Nothing else of the authority is within reach.
	for _, path := range []string{"/auth/sign-in", "/auth/../sessions", "/auth/refresh/../../sessions", "/v1/sessions"} {
		if a := call("POST", path, object{}, session...); a.Status != 404 {
			t.Errorf("%s: %d %s", path, a.Status, a.Text)
		}
	}

	// The authority is away: the routes go on, and refresh says "later".
	auth.stop()
	for _, path := range routes {
		call("GET", path, nil, "Authorization", "Bearer "+in.AccessToken).want(t, 200, "")
	}
	if a := call("POST", "/auth/refresh", nil, session...).want(t, 503, "unavailable"); a.Header.Get("Retry-After") == "" || len(a.Header["Set-Cookie"]) > 0 {
		t.Errorf("a passing failure: %v", a.Header)
	}
	auth.again()
	call("POST", "/auth/refresh", nil, session...).want(t, 200, "")

	// Another site cannot sign the user out; the user can.
	call("POST", "/auth/sign-out", nil, append(session, "Sec-Fetch-Site", "cross-site")...).want(t, 403, "invalid_request")
	out := call("POST", "/auth/sign-out", nil, session...).want(t, 204, "")
	if c := out.Header.Get("Set-Cookie"); !strings.HasPrefix(c, "__Host-counterfoil=;") {
		t.Errorf("the cookie is not cleared: %q", c)
	}
	call("POST", "/auth/refresh", nil, session...).want(t, 401, "session_revoked")
}

// What is tested is what the lock file of the example installs.
func TestExpressLockFile(t *testing.T) {
	type lock struct {
		Packages map[string]struct {
			Version, Integrity string
			Dependencies       map[string]string
		}
	}
	read := func(path string) (l lock) {
		t.Helper()
		data, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(data, &l)
		}
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	shipped, tested := read("express/package-lock.json"), read("../test/node/package-lock.json")
	if len(shipped.Packages) < 10 {
		t.Fatalf("%d packages in the lock file", len(shipped.Packages))
	}
	for name, p := range shipped.Packages {
		if name == "" {
			var own struct{ Dependencies map[string]string }
			data, err := os.ReadFile("express/package.json")
			if err == nil {
				err = json.Unmarshal(data, &own)
			}
			if err != nil || fmt.Sprint(own.Dependencies) != fmt.Sprint(p.Dependencies) {
				t.Errorf("package.json wants %v, the lock file %v: %v", own.Dependencies, p.Dependencies, err)
			}
		} else if other := tested.Packages[name]; other.Version != p.Version || other.Integrity != p.Integrity {
			t.Errorf("%s: the example locks %s, the tests use %q; run npm install --package-lock-only in both", name, p.Version, other.Version)
		}
	}
}
