package examples_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
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

// copyExpress is a copy of the example beside the packages of the tests, which
// are of the same versions.
func copyExpress(t *testing.T) (dir string) {
	t.Helper()
	modules, root := nodeModules(t), t.TempDir()
	dir = filepath.Join(root, "examples", "express")
	copied := func(to, from string) {
		if err := os.CopyFS(to, os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
	}
	files := map[string]string{}
	for _, name := range []string{"node", "browser"} {
		copied(filepath.Join(root, "sdk", name, "src"), filepath.Join("..", "sdk", name, "src"))
		files[filepath.Join("..", "sdk", name, "package.json")] = filepath.Join(root, "sdk", name, "package.json")
	}
	copied(filepath.Join(dir, "public"), filepath.Join("express", "public"))
	copied(filepath.Join(dir, "hosted"), filepath.Join("express", "hosted"))
	for _, name := range []string{"package.json", "sdk.js", "start.js", "server.js", "pages.js", "events.js", "counterfoil.js", "verify.js", "users.js", "problem.js"} {
		files[filepath.Join("express", name)] = filepath.Join(dir, name)
	}
	for from, to := range files {
		data, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to, data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	// A folder of its own, since sdk.js puts a package there.
	packages, err := os.ReadDir(modules)
	if err == nil {
		err = os.Mkdir(filepath.Join(dir, "node_modules"), 0o700)
	}
	for _, p := range packages {
		if err == nil && !strings.HasPrefix(p.Name(), ".") {
			err = os.Symlink(filepath.Join(modules, p.Name()), filepath.Join(dir, "node_modules", p.Name()))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// startExpress runs one of its two applications with an authority of the test's.
func startExpress(t *testing.T, auth *authority, application string) (url string) {
	t.Helper()
	dir := copyExpress(t)
	if out, err := exec.CommandContext(t.Context(), "node", filepath.Join(dir, "sdk.js")).CombinedOutput(); err != nil {
		t.Fatalf("sdk.js: %v\n%s", err, out)
	}
	node := start(t, []string{
		"COUNTERFOIL_AUTHORITY=" + auth.url, "COUNTERFOIL_ISSUER=" + issuer, "PORT=0",
		"COUNTERFOIL_API_KEY=" + auth.apiKey("--name", "express", "--scope", "sessions", "--scope", "verify"),
	}, "node", filepath.Join(dir, application))
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
	url := startExpress(t, auth, "server.js")
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

// The stream ends with the session, and goes on with fresh access tokens.
func TestExpressStream(t *testing.T) {
	auth := startAuthority(t, "--audience", "app", "--trusted-proxies", "127.0.0.1,::1")
	url := startExpress(t, auth, "server.js")
	signIn := func(subject string) answer {
		return auth.post("/v1/sessions", object{"subject": subject}).want(t, 201, "")
	}
	listen := func(token string) (next func(event string) object) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		t.Cleanup(cancel)
		r, err := http.NewRequestWithContext(ctx, "GET", url+"/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = res.Body.Close() })
		if got := res.Header.Get("Content-Type"); res.StatusCode != 200 || !strings.HasPrefix(got, "text/event-stream") {
			t.Fatalf("%d %q", res.StatusCode, got)
		}
		lines := bufio.NewScanner(res.Body)
		return func(event string) object {
			t.Helper()
			for lines.Scan() {
				if lines.Text() != "event: "+event || !lines.Scan() {
					continue
				}
				var data object
				if err := json.Unmarshal([]byte(strings.TrimPrefix(lines.Text(), "data: ")), &data); err != nil {
					t.Fatal(err)
				}
				return data
			}
			t.Fatalf("the stream ended without %s: %v", event, lines.Err())
			return nil
		}
	}
	bearer := func(token string) []string { return []string{"Authorization", "Bearer " + token} }
	call(t, "GET", url+"/events", nil).want(t, 401, "credential_missing")
	call(t, "GET", url+"/events", nil, bearer("x.y.z")...).want(t, 401, "token_invalid")

	ann, bob := signIn("ann"), signIn("bob")
	stream, other := listen(ann.AccessToken), listen(bob.AccessToken)
	id := fmt.Sprint(stream("open")["id"])
	otherID := fmt.Sprint(other("open")["id"])
	stream("tick")

	// Fresh tokens of the same session, and of no other.
	call(t, "POST", auth.url+"/v1/users/ann/rights-changed", nil, bearer(auth.key)...).want(t, 204, "")
	if end := stream("end"); end["code"] != "token_stale" {
		t.Errorf("rights have changed: %v", end)
	}
	call(t, "PUT", url+"/events/"+id, nil, bearer(bob.AccessToken)...).want(t, 404, "not_found")
	refreshed := call(t, "POST", auth.url+"/v1/auth/refresh", nil, bearer(ann.SessionToken)...).want(t, 200, "")
	stream = listen(refreshed.AccessToken)
	id = fmt.Sprint(stream("open")["id"])
	fresh := call(t, "POST", auth.url+"/v1/auth/refresh", nil, bearer(ann.SessionToken)...).want(t, 200, "")
	call(t, "PUT", url+"/events/"+id, nil, bearer(fresh.AccessToken)...).want(t, 200, "")
	call(t, "PUT", url+"/events/"+otherID, nil, bearer(fresh.AccessToken)...).want(t, 401, "token_invalid")
	stream("tick")

	call(t, "DELETE", auth.url+"/v1/sessions/"+ann.Session.SID, nil, bearer(auth.key)...).want(t, 204, "")
	if end := stream("end"); end["code"] != "token_revoked" {
		t.Errorf("signed out: %v", end)
	}
	other("tick") // somebody else's goes on
	call(t, "GET", url+"/events", nil, bearer(fresh.AccessToken)...).want(t, 401, "token_revoked")
}

// What is tested is what the lock file of the example installs.
func TestExpressLockFile(t *testing.T) {
	type lock struct {
		Packages map[string]struct {
			Version, Integrity            string
			Dependencies, DevDependencies map[string]string
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
			var own struct{ Dependencies, DevDependencies map[string]string }
			data, err := os.ReadFile("express/package.json")
			if err == nil {
				err = json.Unmarshal(data, &own)
			}
			if err != nil || fmt.Sprint(own) != fmt.Sprint(struct{ a, b any }{p.Dependencies, p.DevDependencies}) {
				t.Errorf("package.json wants %v, the lock file %v: %v", own, p, err)
			}
		} else if other := tested.Packages[name]; other.Version != p.Version || other.Integrity != p.Integrity {
			t.Errorf("%s: the example locks %s, the tests use %q; run npm install --package-lock-only in both", name, p.Version, other.Version)
		}
	}
}
