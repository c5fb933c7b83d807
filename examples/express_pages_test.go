package examples_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// An Express application with the authority's own pages, all at one host. With
// COUNTERFOIL_TEST_SCREENSHOTS the story leaves pictures in that folder.
func TestExpressPages(t *testing.T) {
	if os.Getenv("COUNTERFOIL_TEST_CHROMIUM") == "" {
		if os.Getenv("COUNTERFOIL_TEST_ALL") == "1" {
			t.Fatal("COUNTERFOIL_TEST_CHROMIUM is not set")
		}
		t.Skip("COUNTERFOIL_TEST_CHROMIUM is not set: run make test")
	}
	auth := startAuthority(t, "--audience", "app", "--trusted-proxies", "127.0.0.1,::1", "--pages-name", "Ship's chandler")
	url := startExpress(t, auth, "pages.js")

	call(t, "GET", url+"/api/orders", nil).want(t, 401, "credential_missing")
	call(t, "GET", url+"/account/sign-in", nil).want(t, 200, "")
	// Nothing else of the authority is within reach, however it is written.
	for _, path := range []string{"/v1/sessions", "/v1/auth/../sessions", "/account/../v1/sessions", "/v1/auth/%2e%2e/sessions", "/v1/auth/..%2Fsessions", "/V1/auth/refresh"} {
		if a := call(t, "POST", url+path, object{"subject": "eve"}, "Authorization", "Bearer "+auth.key); a.Status != 404 {
			t.Errorf("%s: %d %s", path, a.Status, a.Text)
		}
	}

	script, err := filepath.Abs(filepath.Join("..", "test", "node", "examples", "express.mjs"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "node", script, url, auth.url)
	cmd.Env = append(os.Environ(), "COUNTERFOIL_API_KEY="+auth.key)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Errorf("the story: %v", err)
	}
}

// The commands of the README: an authority and the application, in one.
func TestExpressStart(t *testing.T) {
	dir := copyExpress(t)
	manifest, err := os.ReadFile(filepath.Join(dir, "package.json"))
	if err != nil {
		t.Fatal(err)
	}
	// The copy has no Go module: the workspace says where it is.
	repository, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	module, err := os.ReadFile(filepath.Join(repository, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	work := filepath.Join(dir, "go.work")
	version := regexp.MustCompile(`(?m)^go .+$`).Find(module)
	if err := os.WriteFile(work, fmt.Appendf(nil, "%s\n\nuse %q\n", version, repository), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct{ page, path string }{
		"server": {"<h1>Express</h1>", "/auth/refresh"},
		"pages":  {"Come aboard", "/v1/auth/refresh"},
	} {
		script := fmt.Sprintf(`": "node start.js %s.js"`, name)
		if !strings.Contains(string(manifest), script) {
			t.Errorf("package.json has no script %s", script)
		}
		free, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := free.Addr().(*net.TCPAddr).Port
		if err := free.Close(); err != nil {
			t.Fatal(err)
		}
		p := start(t, []string{"GOWORK=" + work, "PORT=" + strconv.Itoa(port)}, "node", filepath.Join(dir, "start.js"), name+".js")
		url := p.says(`express on (http://\S+)`)
		if got := call(t, http.MethodGet, url+"/", nil).want(t, 200, ""); !strings.Contains(got.Text, want.page) {
			t.Errorf("%s: %s", name, got.Text)
		}
		call(t, http.MethodPost, url+want.path, nil).want(t, 401, "credential_missing")
		p.stop()
	}
}
