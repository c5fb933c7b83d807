package pages_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
	"github.com/counterfoil/counterfoil/httpapi"
	"github.com/counterfoil/counterfoil/memstore"
	"github.com/counterfoil/counterfoil/pages"
	"github.com/counterfoil/counterfoil/verify"
)

const shopHTML = `<!doctype html><html lang="en"><title>Shop</title><h1>Shop</h1>
<form method="post" action="/pay?from=shop"><input name="to" value="bob"><input name="to" value="eve">
<textarea name="words"></textarea><button>Pay</button></form>`

// The whole story in a browser: with and without JavaScript, by keyboard, with
// a passkey, looked through by axe-core in light and dark. With
// COUNTERFOIL_TEST_SCREENSHOTS it leaves pictures in that folder.
func TestStory(t *testing.T) {
	for _, need := range []string{"COUNTERFOIL_TEST_CHROMIUM", "COUNTERFOIL_TEST_NODE_MODULES"} {
		if os.Getenv(need) != "" {
			continue
		}
		if os.Getenv("COUNTERFOIL_TEST_ALL") == "1" {
			t.Fatalf("%s is not set: run make test", need)
		}
		t.Skipf("%s is not set: run make test", need)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	noError(t, err)
	port := listener.Addr().(*net.TCPAddr).Port
	home := fmt.Sprintf("http://localhost:%d", port)
	elsewhere := fmt.Sprintf("http://127.0.0.1:%d", port)

	var ahead, payments atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	var mail atomic.Pointer[string]
	log := &logs{}
	store := memstore.New(memstore.Clock(now))
	auth, err := counterfoil.New(t.Context(), store, counterfoil.Config{
		Issuer: home, Audiences: []string{"app"}, Seal: counterfoil.SealSecrets(bytes.Repeat([]byte{1}, 32)), Clock: now,
		Logger: slog.New(slog.NewTextHandler(log, nil)), SignedOut: pages.SignedOut("/account"), StepUp: pages.StepUp("/account"),
	})
	noError(t, err)
	defer func() { noError(t, auth.Close()) }()
	users, err := directory.New(auth, store.Users(), directory.Config{Hash: directory.Argon2id{Memory: 19 << 10, Time: 2, Parallelism: 1}})
	noError(t, err)

	mux := http.NewServeMux()
	mux.Handle("/account/", http.StripPrefix("/account", pages.Handler(auth, users, pages.WithName("Harbour Library"), pages.WithDeviceAPI("/auth"),
		pages.WithHelp("The desk helps: 555 0100."), pages.WithRedirectOrigins(elsewhere),
		pages.WithSendReset(home+"/account", func(_ context.Context, _ directory.User, link string) error { mail.Store(&link); return nil }))))
	mux.Handle("/auth/", http.StripPrefix("/auth", httpapi.Device(auth, httpapi.WithDirectory(users))))
	page := func(text string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			_, _ = io.WriteString(w, text)
		})
	}
	mux.Handle("GET /{$}", page("<!doctype html><title>Home</title>"))
	mux.Handle("GET /elsewhere", page("<!doctype html><title>Elsewhere</title>"))
	mux.Handle("GET /favicon.ico", page(""))
	mux.Handle("GET /shop", auth.Browser()(page(shopHTML)))
	mux.Handle("POST /pay", auth.Browser(verify.MaxAuthAge(10*time.Minute))(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := payments.Add(1)
		noError(t, r.ParseForm())
		fmt.Fprintf(w, "payment %d: %q", n, r.Form)
	})))
	mux.HandleFunc("POST /test/later", func(_ http.ResponseWriter, r *http.Request) {
		minutes, _ := strconv.Atoi(r.URL.Query().Get("minutes"))
		ahead.Add(int64(time.Duration(minutes) * time.Minute))
	})
	mux.HandleFunc("GET /test/mail", func(w http.ResponseWriter, _ *http.Request) {
		if link := mail.Load(); link != nil {
			_, _ = io.WriteString(w, *link)
		}
	})
	server := httpapi.Server(mux)
	go func() { _ = server.Serve(listener) }()
	defer func() { noError(t, server.Close()) }()

	script, err := filepath.Abs(filepath.Join("..", "test", "node", "pages", "story.mjs"))
	noError(t, err)
	out, err := exec.CommandContext(t.Context(), "node", script, home, elsewhere).CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Errorf("the story: %v", err)
	}
	if text := log.String(); strings.Contains(text, "level=ERROR") || secret.MatchString(text) {
		t.Errorf("the log:\n%s", text)
	}
}
