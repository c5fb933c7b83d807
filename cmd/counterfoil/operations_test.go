//go:build unix

package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/counterfoil/counterfoil/internal/testenv"
)

// block is one of commands on a page.
type block struct {
	on    string // the store that it is about
	lines []string
}

func operationsPage(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

func blocks(page string) (all []block) {
	for _, m := range regexp.MustCompile("(?s)(<!-- on: (\\w+) -->\n)?```sh\n(.*?)```").FindAllStringSubmatch(page, -1) {
		b := block{on: "sqlite", lines: strings.Split(strings.TrimSpace(m[3]), "\n")}
		if m[2] != "" {
			b.on = m[2]
		}
		all = append(all, b)
	}
	return all
}

// desk is where an operator types: a folder, an environment, and a server that
// systemctl starts and stops.
type desk struct {
	t      *testing.T
	dir    string
	env    []string
	args   []string // of serve
	server *process
}

func newDesk(t *testing.T, config string, args ...string) *desk {
	t.Helper()
	d := &desk{t: t, dir: t.TempDir(), args: args}
	file := filepath.Join(d.dir, "counterfoil.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	d.set("COUNTERFOIL_CONFIG", file)
	t.Cleanup(func() {
		if d.server != nil {
			_ = d.server.kill()
		}
	})
	return d
}

func (d *desk) set(name, value string) { d.env = append(d.env, name+"="+value) }

func (d *desk) start() {
	d.t.Helper()
	var err error
	if d.server, err = startServer(d.dir, cleanEnv(d.env[0]), d.args...); err != nil {
		d.t.Fatal(err)
	}
}

// typed does one line as a shell would, and fails the test when it fails.
func (d *desk) typed(line string) string {
	d.t.Helper()
	switch words := strings.Fields(line); {
	case words[0] == "export":
		return "" // the test has its own
	case words[0] == "systemctl":
		if len(words) != 3 || words[2] != "counterfoil" {
			d.t.Fatalf("%s: the unit is counterfoil", line)
		}
		if words[1] != "start" {
			if err := d.server.stop(); err != nil {
				d.t.Fatal(err)
			}
		}
		if words[1] != "stop" {
			d.start()
		}
		return ""
	}
	cmd := exec.Command("sh", "-c", line)
	cmd.Dir, cmd.Env = d.dir, cleanEnv(d.env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		d.t.Errorf("%s\n%v\n%s", line, err, out)
	}
	return string(out)
}

func (d *desk) run(all []block, on string, after func(i int)) {
	d.t.Helper()
	n := 0
	for _, b := range all {
		if b.on != on {
			continue
		}
		for _, line := range b.lines {
			d.typed(line)
		}
		if after != nil {
			after(n)
		}
		n++
	}
	if n == 0 {
		d.t.Errorf("the page has no commands for %s", on)
	}
}

// Every command of docs/operations.md, in its order, beside a running server.
func TestOperations(t *testing.T) {
	notUnderRace(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	d := newDesk(t, "issuer = http://"+address+"\nlisten = "+address+"\ndatabase = sqlite:counterfoil.db\n", "--listen", address)
	d.start()
	d.set("NODES", d.server.url)
	d.set("COUNTERFOIL_AUTHORITY", d.server.url)
	d.set("COUNTERFOIL_API_KEY", firstLine(d.typed("counterfoil api-key create --name all")))
	key := d.env[len(d.env)-1][len("COUNTERFOIL_API_KEY="):]
	d.set("KEY_ID", regexp.MustCompile(`"id": "(\w+)"`).FindStringSubmatch(d.typed("counterfoil api-key create --name spare --json"))[1])
	d.typed("counterfoil user create ann@example.org --generate")
	d.set("SID", startedFor(t, d.server.url, key, "user-42"))
	startedFor(t, d.server.url, key, "user-42")
	d.run(blocks(operationsPage(t)), "sqlite", nil)

	// Something came of it.
	if out := d.typed("counterfoil session list --active --subject user-42"); strings.Contains(out, "user-42") {
		t.Errorf("sessions go on after the restore:\n%s", out)
	}
	if out := d.typed("counterfoil keys list"); strings.Count(out, "revoked") < 2 {
		t.Errorf("keys:\n%s", out)
	}
	if out := d.typed("cat doctor.json"); !strings.Contains(out, `"findings"`) {
		t.Errorf("doctor.json: %s", out)
	}
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// startedFor starts a session as a backend does, and returns its SID.
func startedFor(t *testing.T, at, key, subject string) string {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, at+"/v1/sessions", strings.NewReader(fmt.Sprintf(`{"subject":%q}`, subject)))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+key)
	r.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	sid := regexp.MustCompile(`"sid":"(\w+)"`).FindSubmatch(body)
	if sid == nil {
		t.Fatalf("%s: %s", answer.Status, body)
	}
	return string(sid[1])
}

func TestOperationsOnPostgreSQL(t *testing.T) {
	notUnderRace(t)
	server, _ := ownPostgres(t)
	d := newDesk(t, "database = "+server.URL+"\n", "--seal-file", "counterfoil.seal")
	copied, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	copied.Path = "/restored_copy"
	d.set("URL", server.URL)
	d.set("COPY", copied.String())
	d.set("PATH", os.Getenv(testenv.PostgresBin)+":"+os.Getenv("PATH"))
	d.run(blocks(operationsPage(t)), "postgres", func(i int) {
		if i == 0 {
			d.start() // with the seal that the first block makes
		}
	})
}

// The rules on the page are those of the file, and ask for what /metrics has.
func TestAlerts(t *testing.T) {
	file := deployed(t, "prometheus-alerts.yaml")
	if page := operationsPage(t); !strings.Contains(page, "```yaml\n"+file+"```") {
		t.Error("docs/operations.md shows other rules than deploy/prometheus-alerts.yaml")
	}
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr, For string
				Annotations      map[string]string
			}
		}
	}
	if err := yaml.Unmarshal([]byte(file), &rules); err != nil {
		t.Fatal(err)
	}
	p, err := startServer(t.TempDir(), cleanEnv(), "--metrics-listen", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.kill() }()
	at := regexp.MustCompile(` metrics=(http\S+)`).FindStringSubmatch(p.log.String())
	if at == nil {
		t.Fatal(p.log)
	}
	answer, err := http.Get(at[1])
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	metrics := string(body)
	asked := regexp.MustCompile(`(counterfoil_\w+)(?:\{(\w+="\w+")\})?`)
	count := 0
	for _, group := range rules.Groups {
		for _, rule := range group.Rules {
			count++
			if rule.Alert == "" || rule.For == "" || rule.Annotations["summary"] == "" {
				t.Errorf("%+v lacks a member", rule)
			}
			if page := operationsPage(t); !strings.Contains(page, "| `"+rule.Alert+"` |") {
				t.Errorf("the page does not say what to do about %s", rule.Alert)
			}
			for _, m := range asked.FindAllStringSubmatch(rule.Expr, -1) {
				if !regexp.MustCompile(`(?m)^` + m[1] + `(\{[^}]*` + m[2] + `[^}]*\})? `).MatchString(metrics) {
					t.Errorf("%s asks for %s{%s}, which /metrics does not have", rule.Alert, m[1], m[2])
				}
			}
		}
	}
	if count != 4 {
		t.Errorf("%d alerts, want four", count)
	}
}

// A backup is the database as it is, nobody else may read it, and nothing is
// written over.
func TestBackup(t *testing.T) {
	path := sqliteFor(t)
	target := filepath.Join(t.TempDir(), "copy.db")
	if _, err := runQuietly("backup", target, "--database", "sqlite:"+path); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(target)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	expect(t, diagnose(t, nil, nil, nil, "--database", "sqlite:"+target), "tables", statusOK)
	for _, args := range [][]string{
		{"backup", target, "--database", "sqlite:" + path},
		{"backup", filepath.Join(t.TempDir(), "none", "x.db"), "--database", "sqlite:" + path},
		{"backup", target + "2", "--database", "sqlite:" + path + "none"},
		{"backup", target + "2", "--database", "postgres://h/x"},
	} {
		if _, err := runQuietly(args...); err == nil {
			t.Errorf("%q is done", args)
		}
	}
	entries, err := os.ReadDir(filepath.Dir(target))
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}
