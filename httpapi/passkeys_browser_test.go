package httpapi_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/httpapi"
)

// The whole life of a passkey in a browser, at http://localhost as in
// development: the issuer's address is 127.0.0.1, where browsers make none.
func TestPasskeysInChromium(t *testing.T) {
	needChromium(t)
	t.Parallel()
	inner := http.NewServeMux()
	server := httptest.NewServer(inner)
	t.Cleanup(server.Close)
	s := newSite(t, func(c *counterfoil.Config) { c.Issuer = server.URL })
	inner.Handle("/auth/", http.StripPrefix("/auth", httpapi.Device(s.auth, httpapi.WithDirectory(s.users))))
	inner.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, `<!doctype html><title>Home</title><link rel="icon" href="data:,"><input autocomplete="username webauthn">`)
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "node", "../test/node/passkeys/story.mjs",
		strings.Replace(server.URL, "127.0.0.1", "localhost", 1)+"/").CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}
