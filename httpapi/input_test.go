package httpapi_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

// SEC-118: limits and forms of bodies, alike on every route that takes one.
func TestSEC118Bodies(t *testing.T) {
	s := newSite(t)
	made := s.wants(s.backend("POST /v1/sessions", `{"subject":"u1"}`), 201)
	var squeezed bytes.Buffer
	z := gzip.NewWriter(&squeezed)
	z.Write(make([]byte, 1<<20))
	z.Close()
	big := `{"x":"` + strings.Repeat("a", 64<<10) + `"}`
	n := 0
	for path, methods := range s.doc.Paths {
		path = parameter.ReplaceAllString(path, "0123456789abcdefghijklmn")
		for method, op := range methods {
			if method == "get" {
				continue
			}
			n++
			bearer := s.key
			if strings.Contains(path, "/auth/") {
				bearer = made.text("session_token")
			}
			request := strings.ToUpper(method) + " " + path
			good := "application/json"
			if op.RequestBody != nil && op.RequestBody.Content[good].Schema.Type == nil {
				good = "application/x-www-form-urlencoded"
			}
			media := func(value string) []string { return []string{"Content-Type", "", "Content-Type", value} }
			s.wants(s.do(ask{method: request, bearer: bearer, body: big, header: media(good)}), 413, `"code":"invalid_request"`, `"field":"body"`, "64 KiB")
			for _, wrong := range []string{"", "text/plain", "multipart/form-data; boundary=x", "application/jsonp", "application/json; charset=latin1", "application/xml", ";"} {
				s.wants(s.do(ask{method: request, bearer: bearer, body: `{}`, header: media(wrong)}), 415, `"code":"invalid_request"`, `"field":"Content-Type"`)
			}
			for _, encoding := range []string{"gzip", "br", "deflate", "x", "identity, gzip"} {
				s.wants(s.do(ask{method: request, bearer: bearer, body: squeezed.String(), header: append(media(good), "Content-Encoding", encoding)}), 415, `"field":"Content-Encoding"`)
			}
			// Of unknown length, and too long.
			r := httptest.NewRequest(strings.ToUpper(method), "https://app.example"+path, io.MultiReader(strings.NewReader(big)))
			r.Header.Set("Content-Type", good)
			r.Header.Set("Authorization", "Bearer "+bearer)
			s.wants(s.serve(r, false), 413)
			// Cut off in the middle.
			r = httptest.NewRequest(strings.ToUpper(method), "https://app.example"+path, io.MultiReader(strings.NewReader(`{`), broken{}))
			r.Header.Set("Content-Type", good)
			r.Header.Set("Authorization", "Bearer "+bearer)
			s.wants(s.serve(r, false), 400, `"field":"body"`)
		}
	}
	if n < 15 {
		t.Errorf("only %d routes", n)
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestMediaTypesTaken(t *testing.T) {
	s := newSite(t)
	for _, media := range []string{"application/json", "Application/JSON", "application/json; charset=utf-8", "application/json;charset=UTF-8"} {
		s.wants(s.do(ask{method: "POST /v1/sessions", bearer: s.key, body: `{"subject":"u"}`, header: []string{"Content-Type", "", "Content-Type", media}}), 201)
	}
	s.wants(s.do(ask{method: "POST /v1/users/u/rights-changed", bearer: s.key, header: []string{"Content-Type", "text/plain"}}), 204)
}

func TestUnknownAddresses(t *testing.T) {
	s := newSite(t)
	for _, path := range []string{"/", "/v1", "/v1/", "/v1/auth", "/v1/auth/", "/v1/auth/sign-in/", "/v1//auth/sign-in", "/V1/auth/sign-in", "/v1/auth/../auth/sign-in", "/v1/users//epoch",
		"/v1/sessions/a/b", "/.well-known", "/.well-known/jwks.json/", "/index.html", "/v1/auth/sign%2Din", "/%2e%2e/", "/v1/revocations/", "/metrics", "/debug/pprof/"} {
		for _, method := range []string{"GET", "POST", "HEAD", "OPTIONS", "DELETE"} {
			a := s.do(ask{method: method, path: path, any: true, bearer: s.key})
			if a.Code != 404 || method != "HEAD" && a.text("code") != "not_found" || a.Header().Get("Location") != "" {
				t.Errorf("%s %s: %d %s", method, path, a.Code, a.Body)
			}
		}
	}
	a := s.wants(s.do(ask{method: "DELETE /v1/users/x", any: true, bearer: s.key}), 404)
	if a.Header().Get("Allow") != "" {
		t.Error("Allow on 404")
	}
	a = s.wants(s.do(ask{method: "PUT /v1/users/x", any: true}), 405, `"code":"invalid_request"`)
	if got := a.Header().Get("Allow"); got != "DELETE, GET, HEAD, OPTIONS, PATCH" {
		t.Errorf("Allow %q", got)
	}
	a = s.wants(s.do(ask{method: "OPTIONS /v1/auth/refresh", any: true}), 204)
	if got := a.Header().Get("Allow"); got != "OPTIONS, POST" {
		t.Errorf("Allow %q", got)
	}
}

// values are what fields are filled with.
var values = []string{
	`null`, `true`, `false`, `0`, `-1`, `1`, `-0`, `1.5`, `1e308`, `1e-5`, `9223372036854775807`, `-9223372036854775808`, `9223372036854775808`, `99999999999999999999999999`,
	`""`, `"x"`, `" "`, `"\u0000"`, `"\ud800"`, `"\ud83d\ude00"`, `"\u202e"`, `"'; DROP TABLE users; --"`, `"../../etc/passwd"`, `"${jndi:ldap://x}"`, `"<script>"`, `"\r\nSet-Cookie: a=b"`,
	`"a@example.org"`, `"cf_st_x"`, `"cf_sk_x"`, `"eyJhbGciOiJub25lIn0.e30."`, `"` + strings.Repeat("y", 300) + `"`, `"` + strings.Repeat("é", 5000) + `"`,
	`[]`, `[null]`, `[[]]`, `["x","y"]`, `[1]`, `{}`, `{"x":1}`, `{"ip":{}}`, `{"":""}`, strings.Repeat("[", 40) + strings.Repeat("]", 40), `[` + strings.Repeat(`"x",`, 2000) + `"x"]`,
	`{"sub":"x"}`, `{"a":"` + strings.Repeat("z", 2000) + `"}`, "\"\xff\"", `NaN`, `'x'`, ``, `tru`, `"this"`, `"others"`, `"body"`,
}

// Garbage in every field of every route is never our fault (no 5xx). What is
// tried comes from the document, so a new field is tried too.
func TestGarbageInEveryField(t *testing.T) {
	s := newSite(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	for _, path := range slices.Sorted(maps.Keys(s.doc.Paths)) {
		for method, op := range s.doc.Paths[path] {
			method = strings.ToUpper(method)
			var names []string
			if op.RequestBody != nil {
				for _, content := range op.RequestBody.Content {
					names = slices.Sorted(maps.Keys(content.Schema.Properties))
				}
			}
			for i := range 3 * len(values) {
				bearer := s.key
				if strings.Contains(path, "/auth/") {
					bearer = "cf_st_" + strings.Repeat("0", 73)
				}
				target := parameter.ReplaceAllStringFunc(path, func(string) string {
					return strings.NewReplacer("/", "%2F", "?", "%3F", "#", "%23", " ", "%20", "%", "%25").Replace(trimmed(random))
				})
				for n, p := range op.Parameters {
					if p.In == "query" && random.IntN(2) == 0 {
						target += map[bool]string{true: "?", false: "&"}[!strings.Contains(target, "?")] + p.Name + "=" + escape(trimmed(random))
						_ = n
					}
				}
				body := values[i%len(values)]
				if len(names) > 0 && i >= len(values) {
					var members []string
					for _, name := range names {
						if random.IntN(3) > 0 {
							members = append(members, `"`+name+`":`+values[random.IntN(len(values))])
						}
					}
					body = "{" + strings.Join(members, ",") + "}"
				}
				if strings.Contains(path, "sign-") || strings.Contains(path, "/users") && method == "POST" {
					body = strings.ReplaceAll(body, `"a@example.org"`, `"a"`) // no hash for garbage, or this takes minutes
				}
				if method == "GET" {
					body = ""
				}
				r, err := http.NewRequest(method, "https://app.example"+target, strings.NewReader(body))
				if err != nil {
					continue
				}
				r.RemoteAddr = s.ip
				r.Header.Set("Content-Type", "application/json")
				if strings.Contains(path, "introspect") {
					r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				}
				r.Header.Set("Authorization", "Bearer "+bearer)
				if a := s.serve(r, true); a.Code >= 500 {
					t.Fatalf("seed %d: %s %s with %.300s: %d %s", seed, method, target, body, a.Code, a.Body)
				}
			}
		}
	}
}

func trimmed(random *rand.Rand) string {
	v := strings.Trim(values[random.IntN(len(values))], `"`)
	return v[:min(len(v), 400)]
}

func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; 'a' <= c && c <= 'z' || '0' <= c && c <= '9' {
			b.WriteByte(c)
		} else {
			b.WriteString("%" + string("0123456789ABCDEF"[c>>4]) + string("0123456789ABCDEF"[c&15]))
		}
	}
	return b.String()
}

// FuzzCalls sends anything anywhere: never a 5xx, always a problem.
func FuzzCalls(f *testing.F) {
	s := newSite(f)
	token := s.wants(s.backend("POST /v1/sessions", `{"subject":"u1"}`), 201).text("session_token")
	paths := slices.Sorted(maps.Keys(s.doc.Paths))
	for i := range paths {
		f.Add(uint8(i), "POST", "x", "", []byte(`{"subject":"u1","epoch":1}`), "application/json", false)
	}
	for _, v := range values {
		f.Add(uint8(0), "POST", "", "limit=2", []byte(`{"a":`+v+`}`), "application/json", true)
	}
	f.Fuzz(func(t *testing.T, at uint8, method, id, query string, body []byte, media string, asUser bool) {
		path := parameter.ReplaceAllLiteralString(paths[int(at)%len(paths)], "/"+id)
		path = strings.ReplaceAll(path, "//", "/")
		r, err := http.NewRequest(method, "https://app.example"+path+"?"+query, bytes.NewReader(body))
		if err != nil || strings.Contains(string(body), `"password"`) {
			return
		}
		r.RemoteAddr = s.ip
		r.Header.Set("Content-Type", media)
		r.Header.Set("Authorization", "Bearer "+s.key)
		if asUser {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		w := httptest.NewRecorder()
		ctx, gone := context.WithCancel(t.Context())
		defer gone()
		s.handler.ServeHTTP(&untilFlushed{w, gone}, r.WithContext(ctx))
		if w.Code >= 500 {
			t.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
		}
		if w.Code >= 400 && w.Header().Get("Content-Type") != "application/problem+json" {
			t.Fatalf("%s %s: %d is no problem: %s", method, path, w.Code, w.Body)
		}
	})
}
