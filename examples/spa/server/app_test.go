package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/httpapi"
)

// need insists on what make test brings.
func need(t *testing.T, variables ...string) {
	t.Helper()
	for _, name := range variables {
		if os.Getenv(name) != "" {
			continue
		}
		if os.Getenv("COUNTERFOIL_TEST_ALL") == "1" {
			t.Fatalf("%s is not set", name)
		}
		t.Skipf("%s is not set: run make test", name)
	}
}

// copied is the example beside the SDK in a folder of the test's own, with the
// packages that npm ci put into the example's: what was built in the tree by
// hand does not count.
func copied(t *testing.T) (spa string) {
	t.Helper()
	modules, err := filepath.Abs(filepath.Join("..", "node_modules"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(modules, "vite")); err != nil {
		if os.Getenv("COUNTERFOIL_TEST_ALL") == "1" {
			t.Fatal(err)
		}
		t.Skip("Vite is not installed: run make test")
	}
	root := t.TempDir()
	spa = filepath.Join(root, "examples", "spa")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for from, to := range map[string]string{"..": spa, filepath.Join("..", "..", "..", "sdk", "browser"): filepath.Join(root, "sdk", "browser")} {
		must(filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			relative, err := filepath.Rel(from, path)
			if err != nil {
				return err
			}
			switch entry.Name() {
			case "node_modules", "dist", "server", "test", "chromium":
				if entry.IsDir() {
					return fs.SkipDir
				}
				return nil // a link
			}
			if entry.IsDir() {
				return os.MkdirAll(filepath.Join(to, relative), 0o700)
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(to, relative), data, 0o600)
		}))
	}
	entries, err := os.ReadDir(modules)
	must(err)
	must(os.MkdirAll(filepath.Join(spa, "node_modules", "@counterfoil"), 0o700))
	for _, entry := range entries {
		if entry.Name() != "@counterfoil" {
			must(os.Symlink(filepath.Join(modules, entry.Name()), filepath.Join(spa, "node_modules", entry.Name())))
		}
	}
	must(os.Symlink(filepath.Join("..", "..", "..", "..", "sdk", "browser"), filepath.Join(spa, "node_modules", "@counterfoil", "browser")))
	return spa
}

func command(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Built as for production, served by the Go program, and lived with in a
// browser. With COUNTERFOIL_TEST_SCREENSHOTS it leaves pictures in that folder.
func TestStory(t *testing.T) {
	need(t, "COUNTERFOIL_TEST_CHROMIUM", "COUNTERFOIL_TEST_NODE_MODULES")
	spa := copied(t)
	command(t, spa, "npm", "run", "build", "--silent", "--offline")

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := fmt.Sprintf("http://localhost:%d", listener.Addr().(*net.TCPAddr).Port)
	var ahead atomic.Int64
	app, err := newApp(t.Context(), url, func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) })
	if err != nil {
		t.Fatal(err)
	}
	defer app.auth.Close()
	mux := http.NewServeMux()
	mux.Handle("/", app.routes(filepath.Join(spa, "dist")))
	mux.HandleFunc("POST /test/later", func(_ http.ResponseWriter, r *http.Request) {
		minutes, _ := strconv.Atoi(r.URL.Query().Get("minutes"))
		ahead.Add(int64(time.Duration(minutes) * time.Minute))
	})
	mux.HandleFunc("POST /test/rights", func(_ http.ResponseWriter, r *http.Request) {
		users, _, err := app.users.List(r.Context(), "", 10)
		if err == nil && len(users) == 1 {
			err = app.auth.RightsChanged(r.Context(), users[0].ID)
		}
		if err != nil || len(users) != 1 {
			t.Errorf("%d users, %v", len(users), err)
		}
	})
	server := httpapi.Server(mux)
	go func() { _ = server.Serve(listener) }()
	defer server.Close()

	script, err := filepath.Abs(filepath.Join("..", "..", "..", "test", "node", "examples", "spa.mjs"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", command(t, "", "node", script, url))
}

// The one command of the README: Vite's dev server in front of the Go program.
func TestStart(t *testing.T) {
	need(t, "COUNTERFOIL_TEST_NODE_MODULES")
	spa := copied(t)
	manifest, err := os.ReadFile(filepath.Join(spa, "package.json"))
	if err != nil || !strings.Contains(string(manifest), `"start": "npm run --silent sdk && node start.js"`) {
		t.Fatalf("npm start does something else: %v", err)
	}
	command(t, spa, "npm", "run", "sdk", "--silent", "--offline")

	// The copy has no Go module: the workspace says where it is.
	repository, err := filepath.Abs(filepath.Join("..", "..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	module, err := os.ReadFile(filepath.Join(repository, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	work := filepath.Join(spa, "go.work")
	version := regexp.MustCompile(`(?m)^go .+$`).Find(module)
	if err := os.WriteFile(work, fmt.Appendf(nil, "%s\n\nuse %q\n", version, repository), 0o600); err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(free.Addr().(*net.TCPAddr).Port)
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("node", "start.js")
	cmd.Dir, cmd.Env = spa, append(os.Environ(), "GOWORK="+work, "PORT="+port)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	tooLate := time.AfterFunc(3*time.Minute, func() { _ = cmd.Process.Kill() })
	defer tooLate.Stop()
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "open ") {
	}
	url, ready := strings.CutPrefix(lines.Text(), "open ")
	if !ready {
		t.Fatalf("it did not start: %v\n%s", cmd.Wait(), said.String())
	}

	ask := func(status int, piece, method, path, body string) string {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != status || !strings.Contains(string(text), piece) {
			t.Errorf("%s %s: %d, %v, want %d and %q in\n%.2000s", method, path, res.StatusCode, err, status, piece, text)
		}
		return string(text)
	}
	ask(200, "Cloakroom", "GET", "/", "")
	source := ask(200, "createSession", "GET", "/src/session.ts", "")
	// The SDK lies outside of the example's folder: it is served all the same.
	sdk := regexp.MustCompile(`"(/[^"]*sdk/browser/dist/index\.js[^"]*)"`).FindStringSubmatch(source)
	if sdk == nil {
		t.Fatalf("no SDK is imported in\n%s", source)
	}
	ask(200, "createCore", "GET", sdk[1], "")
	ask(401, "credential_missing", "GET", "/api/things", "")
	ask(201, `"access_token"`, "POST", "/auth/sign-up", `{"email": "ada@example.com", "password": "paper boats on a green river"}`)

	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() {
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it did not end well: %v\n%s", err, said.String())
	}
}
