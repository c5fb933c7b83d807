package sdk_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/counterfoiltest"
	"github.com/counterfoil/counterfoil/directory"
	"github.com/counterfoil/counterfoil/httpapi"
	"github.com/counterfoil/counterfoil/memstore"
	"github.com/counterfoil/counterfoil/verify"
)

// siteRequest is what a case may choose.
type siteRequest struct {
	Idle     int  // seconds; default a week
	Absolute int  // seconds; default 30 days
	Hosts    bool // pages at app., sessions at auth., the protected service at api.shop.test, over TLS
}

// shop is a site with its authority: pages, the device calls under /auth, a
// protected service under /api, the backend calls under /v1.
type shop struct {
	faults
	auth  *counterfoil.Authority
	ahead atomic.Int64 // nanoseconds
	url   string       // of the pages
	plain string       // the same without TLS, for what is no browser
	key   string       // for the backend calls
}

func (s *shop) now() time.Time { return time.Now().Add(time.Duration(s.ahead.Load())) }

// pagePolicy is as strict as a page with scripts can have it: nothing inline,
// no code from text, no markup from text.
const pagePolicy = "default-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

func newShop(c *town, in siteRequest) (*shop, error) {
	s := &shop{}
	var handler http.Handler
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	issuer, policy, origins := "", pagePolicy, []string(nil)
	if in.Hosts {
		server.EnableHTTP2 = true
		server.StartTLS()
		_, port, err := net.SplitHostPort(server.Listener.Addr().String())
		if err != nil {
			return nil, err
		}
		s.url, issuer = "https://app.shop.test:"+port, "https://auth.shop.test:"+port
		policy += "; connect-src 'self' " + issuer + " https://api.shop.test:" + port
		origins = []string{s.url}
	} else {
		server.Start()
		s.url, issuer = server.URL, server.URL
	}
	c.Cleanup(server.Close)
	c.Cleanup(server.CloseClientConnections)

	logs := &counterfoiltest.Logs{}
	log := slog.New(slog.NewTextHandler(logs, nil))
	server.Config.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug)
	c.Cleanup(func() {
		if strings.Contains(logs.String(), "level=ERROR") {
			c.Errorf("the authority complained:\n%s", logs)
		}
	})
	store := memstore.New(memstore.Clock(s.now))
	lifetimes := counterfoil.Consumer
	if in.Idle > 0 {
		lifetimes.Idle = time.Duration(in.Idle) * time.Second
	}
	if in.Absolute > 0 {
		lifetimes.Absolute = time.Duration(in.Absolute) * time.Second
	}
	var err error
	s.auth, err = counterfoil.New(context.Background(), store, counterfoil.Config{
		Issuer: issuer, Audiences: []string{"app"}, Seal: counterfoil.SealSecrets(bytes.Repeat([]byte{7}, 32)),
		Lifetimes: lifetimes, Clock: s.now, Logger: log,
	})
	if err != nil {
		return nil, err
	}
	c.Cleanup(func() { s.auth.Close() })
	users, err := directory.New(s.auth, store.Users(), directory.Config{
		Hash: directory.Argon2id{Memory: 19 << 10, Time: 2, Parallelism: 1}, Logger: log,
	})
	if err != nil {
		return nil, err
	}
	secret, _, err := s.auth.CreateAPIKey(context.Background(), counterfoil.NewAPIKey{Name: "the case"})
	if err != nil {
		return nil, err
	}
	s.key = secret.Reveal()
	verifier, err := s.auth.Verifier("app")
	if err != nil {
		return nil, err
	}

	options := []httpapi.Option{httpapi.WithDirectory(users), httpapi.WithOrigins(origins...)}
	mux := http.NewServeMux()
	mux.Handle("/auth/", s.around(http.StripPrefix("/auth", httpapi.Device(s.auth, options...))))
	mux.Handle("/api/", s.around(service(verifier, s.url)))
	mux.Handle("/v1/", http.StripPrefix("/v1", httpapi.Backend(s.auth, options...)))
	pages := http.StripPrefix("/page", http.FileServerFS(os.DirFS(filepath.Join("browser", "chromium", "page"))))
	files := http.StripPrefix("/sdk", http.FileServerFS(os.DirFS(c.dist)))
	mux.Handle("GET /sdk/", files)
	mux.Handle("GET /page/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", policy)
		pages.ServeHTTP(w, r)
	}))
	handler = mux
	s.plain = s.url
	if in.Hosts {
		inside := httptest.NewServer(mux)
		c.Cleanup(inside.Close)
		s.plain = inside.URL
	}
	return s, nil
}

// service is what the tokens are for.
func service(v *verify.Verifier, page string) http.Handler {
	mux := http.NewServeMux()
	show := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := verify.FromContext(r.Context())
		reply(w, map[string]any{"subject": claims.Subject, "sid": claims.SessionID, "roles": claims.Roles})
	})
	mux.Handle("/api/me", v.Require()(show))
	mux.Handle("/api/report", v.Require(verify.Role("admin"))(show))
	mux.Handle("/api/pay", v.Require(verify.MaxAuthAge(5*time.Minute))(show))
	mux.HandleFunc("/api/anyone", func(w http.ResponseWriter, _ *http.Request) { reply(w, map[string]any{}) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Origin") == page {
			h := w.Header()
			h.Set("Access-Control-Allow-Origin", page)
			h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
			h.Set("Access-Control-Expose-Headers", "WWW-Authenticate")
			if r.Method == http.MethodOptions {
				return
			}
		}
		mux.ServeHTTP(w, r)
	})
}

// requestBody returns a short JSON body, and leaves it to be read.
func requestBody(r *http.Request) json.RawMessage {
	data, err := io.ReadAll(io.LimitReader(r.Body, 4<<10))
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(data), r.Body), r.Body}
	if err != nil || !json.Valid(data) || bytes.Contains(data, []byte("password")) {
		return nil
	}
	return data
}

// bearer names the access token of a request by its jti and subject.
func bearer(r *http.Request) string {
	token, found := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	parts := strings.Split(token, ".")
	if !found || len(parts) != 3 {
		return ""
	}
	var claims struct{ JTI, Sub string }
	data, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err == nil {
		err = json.Unmarshal(data, &claims)
	}
	if err != nil {
		return err.Error()
	}
	return claims.JTI + " of " + claims.Sub
}
