package httpapi_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/httpapi"
	"github.com/counterfoil/counterfoil/verify"
)

// A real browser registers its key, renews the cookie and signs, and a copy of
// its cookies is of no use after the window: at the root of a server, and
// behind a proxy that knows the server by another path.
func TestSEC71DeviceBoundInChromium(t *testing.T) {
	for _, need := range []string{"COUNTERFOIL_TEST_CHROMIUM", "COUNTERFOIL_TEST_NODE_MODULES"} {
		if os.Getenv(need) == "" {
			if os.Getenv("COUNTERFOIL_TEST_ALL") == "1" {
				t.Fatalf("%s is not set", need)
			}
			t.Skipf("%s is not set: make test sets it", need)
		}
	}
	for _, mount := range []struct{ name, outside string }{{"direct", ""}, {"behind a proxy", "/shop"}} {
		t.Run(mount.name, func(t *testing.T) {
			t.Parallel()
			chromiumStory(t, mount.outside)
		})
	}
}

func chromiumStory(t *testing.T, outside string) {
	var server *httptest.Server
	inner := http.NewServeMux()
	server = httptest.NewUnstartedServer(inner)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	s := newSite(t, func(c *counterfoil.Config) {
		c.Issuer, c.MoreClientIDs = server.URL, nil
		c.DeviceBinding.Window = 3 * time.Second
	})
	var registered, renewed atomic.Int32
	device := httpapi.Device(s.auth, httpapi.WithDirectory(s.users))
	inner.Handle("/auth/", http.StripPrefix("/auth", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/dbsc/register":
			registered.Add(1)
		case "/dbsc/refresh":
			renewed.Add(1)
		}
		device.ServeHTTP(w, r)
	})))
	inner.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<!doctype html><title>Home</title>")
	})
	inner.Handle("GET /me", s.auth.Browser()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := verify.FromContext(r.Context())
		fmt.Fprint(w, claims.SessionID)
	})))
	front := server
	if outside != "" {
		to, err := url.Parse(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		front = httptest.NewUnstartedServer(http.StripPrefix(outside, &httputil.ReverseProxy{
			Transport: server.Client().Transport,
			Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(to); r.SetXForwarded() },
		}))
		front.EnableHTTP2 = true
		front.StartTLS()
		t.Cleanup(front.Close)
	}
	key := sha256.Sum256(front.Certificate().RawSubjectPublicKeyInfo)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "../test/node/dbsc/story.mjs",
		front.URL+outside+"/auth", front.URL+outside+"/", base64.StdEncoding.EncodeToString(key[:]))
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
	if registered.Load() != 2 || renewed.Load() < 4 {
		t.Errorf("%d registrations and %d renewals, want 2 and some", registered.Load(), renewed.Load())
	}
	t.Logf("%d renewals", renewed.Load())
}
