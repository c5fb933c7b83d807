package httpapi_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil/httpapi"
)

// SEC-98, SEC-19, SEC-25: no other site makes a browser change anything here.
func TestSEC98CrossSite(t *testing.T) {
	s := newSite(t)
	up := s.wants(s.do(ask{method: "POST /v1/auth/sign-up", body: credentials("ann@example.org")}), 201)
	jar := []string{cookie + "=" + up.setCookie(t).Value}
	site := []string{"", "none", "same-origin", "same-site", "cross-site", "nonsense"}
	origin := []string{"", issuer, friend, "https://evil.example", "null", "https://friend.example.evil.example", "http://friend.example", "https://friend.example:444", friend + "/"}
	for _, fetch := range site {
		for _, from := range origin {
			// No Sec-Fetch-Site: the browser is old or none, and Origin must be
			// absent, the host's own or trusted. With it, only a request of the
			// page itself or of the user, or a trusted origin.
			ok := from == friend
			switch fetch {
			case "":
				ok = ok || from == "" || from == issuer
			case "none", "same-origin":
				ok = true
			}
			var header []string
			if fetch != "" {
				header = append(header, "Sec-Fetch-Site", fetch)
			}
			if from != "" {
				header = append(header, "Origin", from)
			}
			for _, path := range []string{"refresh", "sign-in", "sign-up", "sign-out", "step-up", "password", "password-reset", "passkeys", "passkeys/sign-in", "passkeys/sign-in/begin", "passkeys/sign-up"} {
				body := `{"nonsense":1}` // what passes is then refused for this
				a := s.do(ask{method: "POST /v1/auth/" + path, body: body, cookies: jar, header: header})
				switch {
				case ok && a.Code != 400:
					t.Errorf("%s from %q %q: %d, want it let through", path, fetch, from, a.Code)
				case !ok:
					s.wants(a, 403, `"code":"invalid_request"`, `"field":"Origin"`)
				}
			}
			// Reading changes nothing and is let through; who reads it is for CORS.
			s.wants(s.do(ask{method: "GET /v1/auth/session", cookies: jar, header: header}), 200)
			s.wants(s.do(ask{method: "HEAD /v1/auth/session", cookies: jar, header: header}), 200)
			for _, method := range []string{"PUT", "PATCH", "DELETE"} {
				s.wants(s.do(ask{method: method + " /v1/auth/session", cookies: jar, header: header, any: true}), 405)
			}
		}
	}
	s.wants(s.do(ask{method: "POST /v1/auth/refresh", cookies: jar, header: []string{"Origin", issuer, "Origin", "https://evil.example"}}), 403)
	s.wants(s.do(ask{method: "POST /v1/auth/refresh", cookies: jar}), 200)
}

// SEC-100: exact origins, never reflected, never null.
func TestSEC100CORS(t *testing.T) {
	s := newSite(t)
	token := s.signUp("ann@example.org").text("session_token")
	for _, from := range []string{"", friend, "http://localhost:3000",
		"null", "*", "https://evil.example", "https://friend.example.evil.example", "https://evilfriend.example", "https://xfriend.example",
		"https://friend.example:443", "https://friend.example:8443", "http://friend.example", "HTTPS://FRIEND.EXAMPLE", "https://friend.example/", "https://friend.example.",
		"https://friend.example, https://evil.example", "https://friend.example https://evil.example", "https://friend.exampl", "http://localhost", "http://localhost:30000",
		"http://127.0.0.1:3000", "https://user@friend.example", "file://", "chrome-extension://abc", " " + friend, issuer,
	} {
		trusted := from == friend || from == "http://localhost:3000"
		for _, method := range []string{"GET /v1/auth/session", "OPTIONS /v1/auth/session", "OPTIONS /v1/auth/refresh", "GET /oauth2/userinfo", "GET /v1/auth/sessions"} {
			a := s.do(ask{method: method, bearer: token, any: strings.HasPrefix(method, "OPTIONS"),
				header: []string{"Origin", from, "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "x-evil"}})
			h := a.Header()
			if h.Get("Vary") != "Origin" {
				t.Errorf("%s from %q: Vary %q", method, from, h.Get("Vary"))
			}
			want, credentials := "", ""
			if trusted {
				want, credentials = from, "true"
			}
			if h.Get("Access-Control-Allow-Origin") != want || h.Get("Access-Control-Allow-Credentials") != credentials {
				t.Errorf("%s from %q: %v", method, from, h)
			}
			if strings.HasPrefix(method, "OPTIONS") {
				if a.Code != 204 {
					t.Errorf("%s from %q: %d", method, from, a.Code)
				}
				if got := h.Get("Access-Control-Allow-Headers"); trusted && got != "Authorization, Content-Type" || !trusted && got != "" {
					t.Errorf("%s from %q: headers %q", method, from, got)
				}
				methods := h.Get("Access-Control-Allow-Methods")
				if trusted != (methods != "") || strings.Contains(methods, "*") {
					t.Errorf("%s from %q: methods %q", method, from, methods)
				}
			}
		}
		// Backends are no browsers.
		a := s.do(ask{method: "GET /v1/users", bearer: s.key, header: []string{"Origin", from}})
		for name := range a.Header() {
			if strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("the backend answers %q with %s", from, name)
			}
		}
	}
	// A refusal can be read too, or the page could not tell ended from offline.
	a := s.wants(s.do(ask{method: "POST /v1/auth/refresh", header: []string{"Origin", friend, "Sec-Fetch-Site", "cross-site"}}), 401)
	if a.Header().Get("Access-Control-Allow-Origin") != friend || !strings.Contains(a.Header().Get("Access-Control-Expose-Headers"), "Retry-After") {
		t.Errorf("%v", a.Header())
	}
}

func TestCheckOrigin(t *testing.T) {
	for origin, good := range map[string]bool{
		"https://app.example": true, "https://app.example:8443": true, "http://localhost": true, "http://localhost:3000": true, "http://127.0.0.1:8080": true,
		"http://[::1]:8080": true, "https://xn--bcher-kva.example": true, "https://10.0.0.1": true,
		"": false, "*": false, "null": false, "https://*.app.example": false, "app.example": false, "//app.example": false, "https://": false,
		"http://app.example": false, "https://app.example/": false, "https://app.example/x": false, "https://app.example?": false, "https://app.example?x": false,
		"https://app.example#": false, "https://user@app.example": false, "https://app.example:443": false, "http://localhost:80": false, "https://app.example:": false,
		"https://App.example": false, "HTTPS://app.example": false, "https://bücher.example": false, "ftp://app.example": false, "https:app.example": false,
		" https://app.example": false, "https://app.example ": false, "https://app..example": false, "https://app.example\r\nX: y": false, "https://app.example:x": false,
	} {
		if err := httpapi.CheckOrigin(origin); (err == nil) != good {
			t.Errorf("%q: %v", origin, err)
		}
	}
}

func TestMisusePanics(t *testing.T) {
	s := newSite(t)
	for name, opt := range map[string]httpapi.Option{
		"origin":            httpapi.WithOrigins("https://*.example"),
		"application":       httpapi.WithClientID("stranger"),
		"mount":             httpapi.WithMounts("auth", ""),
		"mount with slash":  httpapi.WithMounts("", "/v1/"),
		"the opaque origin": httpapi.WithOrigins("null"),
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if p, _ := recover().(string); !strings.HasPrefix(p, "httpapi: With") {
					t.Errorf("panicked with %q", p)
				}
			}()
			httpapi.Device(s.auth, opt)
		})
	}
}

// The handlers work under any prefix, and answer as under none.
func TestMounted(t *testing.T) {
	s := newSite(t)
	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", httpapi.Device(s.auth, httpapi.WithDirectory(s.users))))
	mux.Handle("/internal/api/", http.StripPrefix("/internal/api/", httpapi.Backend(s.auth)))
	mux.Handle("/", httpapi.WellKnown(s.auth, httpapi.WithDirectory(s.users), httpapi.WithMounts("/auth", "")))
	for path, want := range map[string]int{
		"GET /auth/session": 401, "POST /auth/sign-in": 400, "GET /auth/nothing": 404, "GET /auth/": 404, "PUT /auth/session": 405,
		"GET /internal/api/users/u%2F1/epoch": 401, "GET /internal/api/users": 404,
		"GET /.well-known/jwks.json": 200, "GET /healthz": 200, "GET /nothing": 404, "GET /": 404,
	} {
		method, path, _ := strings.Cut(path, " ")
		w := newRecorder()
		mux.ServeHTTP(w, newRequest(method, path))
		if w.Code != want || w.Code >= 400 && w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s: %d %s, want %d", method, path, w.Code, w.Body, want)
		}
	}
	doc := readDocument(t, mux)
	if doc.Paths["/auth/sign-in"]["post"].OperationID == "" || doc.Paths["/v1/sessions"] != nil || doc.Paths["/healthz"] == nil {
		t.Error("the document is not of what is mounted")
	}
}
