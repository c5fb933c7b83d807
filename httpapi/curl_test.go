package httpapi_test

import (
	"context"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
)

var block = regexp.MustCompile("(?s)```(sh|text)\n(.*?)```")

// docs/curl.md does what it says: its commands are run in one shell, and what
// it shows as their output is what they write (… stands for anything).
func TestCurlWalkThrough(t *testing.T) {
	for _, program := range []string{"curl", "sh", "sed"} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("COUNTERFOIL_TEST_ALL") == "1" {
				t.Fatal(err)
			}
			t.Skipf("%v; make test installs what is missing", err)
		}
	}
	text, err := os.ReadFile("../docs/curl.md")
	if err != nil {
		t.Fatal(err)
	}
	const mark = "\n=====\n"
	var script strings.Builder
	var shown []string
	for _, b := range block.FindAllStringSubmatch(string(text), -1) {
		if b[1] == "text" {
			shown[len(shown)-1] = b[2]
			continue
		}
		shown = append(shown, "")
		script.WriteString(b[2] + "printf '\\n=====\\n'\n")
	}
	if len(shown) < 8 {
		t.Fatalf("only %d blocks of commands", len(shown))
	}

	s := newSite(t, func(c *counterfoil.Config) { c.Issuer = "http://127.0.0.1:8700" })
	server := httptest.NewServer(s.handler)
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	shell := exec.CommandContext(ctx, "sh", "-eu", "-c", script.String())
	shell.Env = append(os.Environ(), "COUNTERFOIL="+server.URL, "http_proxy=", "HTTP_PROXY=", "ALL_PROXY=", "all_proxy=")
	shell.WaitDelay = time.Second
	out, err := shell.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	wrote := strings.Split(string(out), mark)
	if len(wrote) != len(shown)+1 {
		t.Fatalf("%d outputs of %d blocks:\n%s", len(wrote)-1, len(shown), out)
	}
	for i, want := range shown {
		pattern := "(?s)^" + strings.ReplaceAll(regexp.QuoteMeta(strings.TrimSpace(want)), "…", ".*?") + "$"
		if got := strings.TrimSpace(wrote[i]); !regexp.MustCompile(pattern).MatchString(got) {
			t.Errorf("block %d writes\n%s\nand docs/curl.md shows\n%s", i, got, want)
		}
	}
}
