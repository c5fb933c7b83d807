package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const deployFolder = "../../deploy"

// wouldRun reads a command line as counterfoil does, up to the point where it
// would begin to work.
func wouldRun(t *testing.T, line []string, environ ...string) *flags {
	t.Helper()
	at := root()
	for len(at.children) > 0 {
		if len(line) == 0 {
			t.Fatal("a command is missing")
		}
		next := at.child(line[0])
		if next == nil {
			t.Fatalf("there is no command %q", line[0])
		}
		at, line = next, line[1:]
	}
	f := newFlags()
	a := &app{environ: environ}
	at.setup(a, f)
	if rest, err := f.parse(line); err != nil || len(rest) > 0 {
		t.Errorf("counterfoil %s %q: %v, left %q", at.name, line, err, rest)
	}
	f.config = "" // its file is where it is deployed
	if err := f.fill(a.lookupEnv); err != nil {
		t.Errorf("counterfoil %s: %v", at.name, err)
	}
	for _, problem := range strays(environ) {
		t.Error(problem)
	}
	for _, v := range environ {
		name, _, _ := strings.Cut(v, "=")
		if strings.HasPrefix(name, envPrefix) && name != apiKeyVariable && !slices.ContainsFunc(f.order, func(flag string) bool { return envName(flag) == name }) {
			t.Errorf("counterfoil %s does not know %s", at.name, name)
		}
	}
	return f
}

func deployed(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(deployFolder, filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// The commands of the image are commands, its stages and files are there, and
// it runs as nobody.
func TestDockerfile(t *testing.T) {
	text := strings.ReplaceAll(deployed(t, "Dockerfile"), "\\\n", " ")
	var stage string
	steps := map[string][]string{}
	for line := range strings.Lines(text) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if word == "" || strings.HasPrefix(word, "#") {
			continue
		}
		if word == "FROM" {
			stage = rest
		}
		steps[word] = append(steps[word], strings.TrimSpace(rest))
	}
	if stage != "scratch" {
		t.Errorf("the last stage is from %q", stage)
	}
	if len(steps["FROM"]) != 2 || !regexp.MustCompile(`golang:[\d.]+-\w+ AS build$`).MatchString(steps["FROM"][0]) {
		t.Errorf("stages: %q", steps["FROM"])
	}
	mod, err := os.ReadFile(filepath.Join(deployFolder, "..", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindSubmatch(mod); version == nil || !strings.Contains(steps["FROM"][0], "golang:"+string(version[1])) {
		t.Errorf("%s is not the Go of go.mod", steps["FROM"][0])
	}
	list := func(word string) (words []string) {
		last := steps[word][len(steps[word])-1]
		if _, after, ok := strings.Cut(last, " CMD "); ok {
			last = after
		}
		if err := json.Unmarshal([]byte(last), &words); err != nil {
			t.Errorf("%s %s: want the form of a list, there is no shell", word, last)
		}
		return words
	}
	binary := "/usr/bin/counterfoil"
	if e := list("ENTRYPOINT"); !slices.Equal(e, []string{binary}) {
		t.Errorf("entry point %q", e)
	}
	wouldRun(t, list("CMD"))
	check := list("HEALTHCHECK")
	if check[0] != binary {
		t.Errorf("health check %q", check)
	}
	wouldRun(t, check[1:])
	for _, user := range steps["USER"] {
		if !regexp.MustCompile(`^[1-9]\d+:[1-9]\d+$`).MatchString(user) {
			t.Errorf("USER %s: want numbers, and not root's", user)
		}
	}
	if len(steps["USER"]) != 1 || !strings.Contains(text, "COPY --from=build /out/counterfoil "+binary) || !strings.Contains(text, "ca-certificates.crt") || !strings.Contains(text, "CGO_ENABLED=0") {
		t.Error("the image lacks a user, the binary, certificates, or is not static")
	}
	for _, name := range regexp.MustCompile(`-X (\S+)=\$`).FindAllStringSubmatch(text, -1) {
		if !strings.HasPrefix(name[1], "github.com/counterfoil/counterfoil/internal/stamp.") {
			t.Errorf("-X %s sets nothing", name[1])
		}
	}
}

// What the image is built from holds every package that the binary links.
func TestDockerignore(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if and .Module .Module.Main}}{{.ImportPath}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(deployFolder, "..", ".dockerignore"))
	if err != nil {
		t.Fatal(err)
	}
	kept := strings.Fields(string(data))
	for _, path := range strings.Fields(string(out)) {
		inside := strings.TrimPrefix(strings.TrimPrefix(path, "github.com/counterfoil/counterfoil"), "/")
		top, _, _ := strings.Cut(inside, "/")
		if top != "" && !slices.Contains(kept, "!"+top) {
			t.Errorf(".dockerignore leaves out %s, which the binary needs", top)
		}
	}
}

type composeFile struct {
	Services map[string]struct {
		Image       string
		Command     []string
		Environment map[string]string
		Secrets     []string
		Volumes     []string
		Networks    yaml.Node
		DependsOn   map[string]struct{ Condition string } `yaml:"depends_on"`
		Healthcheck struct{ Test []string }
		ReadOnly    bool `yaml:"read_only"`
	}
	Secrets  map[string]struct{ File string }
	Volumes  map[string]any
	Networks map[string]any
}

func TestCompose(t *testing.T) {
	var c composeFile
	if err := yaml.Unmarshal([]byte(deployed(t, "compose.yaml")), &c); err != nil {
		t.Fatal(err)
	}
	secrets := runSecrets(t)
	ours := 0
	for name, s := range c.Services {
		for _, secret := range s.Secrets {
			if _, ok := c.Secrets[secret]; !ok {
				t.Errorf("%s: there is no secret %s", name, secret)
			}
		}
		for _, volume := range s.Volumes {
			from, _, _ := strings.Cut(volume, ":")
			if _, named := c.Volumes[from]; !named {
				deployed(t, from)
			}
		}
		for on, how := range s.DependsOn {
			if other, ok := c.Services[on]; !ok || how.Condition == "service_healthy" && len(other.Healthcheck.Test) == 0 {
				t.Errorf("%s waits for %s, which is not there or has no health check", name, on)
			}
		}
		if s.Image != "counterfoil:local" {
			continue
		}
		ours++
		var environ []string
		for variable, value := range s.Environment {
			if !strings.HasPrefix(value, "${") {
				environ = append(environ, variable+"="+value)
			}
		}
		f := wouldRun(t, s.Command, environ...)
		if issuer := f.set.Lookup("issuer").Value.String(); issuer == "" || !strings.Contains(deployed(t, "proxy/Caddyfile"), strings.TrimPrefix(issuer, "https://")+" {") {
			t.Errorf("%s: the proxy does not serve the issuer %s", name, issuer)
		}
		if !s.ReadOnly {
			t.Errorf("%s may write where it need not", name)
		}
		if s.Command[0] == "serve" {
			if s.Healthcheck.Test[0] != "CMD" {
				t.Errorf("%s: health check %q: there is no shell", name, s.Healthcheck.Test)
			}
			wouldRun(t, s.Healthcheck.Test[2:])
		}
	}
	if ours != 3 {
		t.Errorf("%d services of ours, want two nodes and the doctor", ours)
	}
	for name, s := range c.Secrets {
		if _, err := os.Stat(filepath.Join(secrets, filepath.Base(s.File))); err != nil || filepath.Base(s.File) != name {
			t.Errorf("secrets.sh does not make %s: %v", name, err)
		}
	}
}

// runSecrets makes the secrets of compose.yaml, and reads them as serve does.
func runSecrets(t *testing.T) (folder string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "secrets.sh"), []byte(deployed(t, "secrets.sh")), 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("sh", filepath.Join(dir, "secrets.sh")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if exec.Command("sh", filepath.Join(dir, "secrets.sh")).Run() == nil {
		t.Error("secrets.sh makes secrets again")
	}
	folder = filepath.Join(dir, "secrets")
	f := newFlags()
	s := newServeFlags(f)
	if _, err := f.parse([]string{"--config", filepath.Join(folder, "counterfoil.conf"), "--seal-file", filepath.Join(folder, "counterfoil.seal"), "--issuer", "https://auth.localhost"}); err != nil {
		t.Fatal(err)
	}
	a := &app{stderr: os.Stderr}
	if err := f.fill(a.lookupEnv); err != nil {
		t.Fatal(err)
	}
	settings, err := s.settings(a)
	if err != nil {
		t.Fatal(err)
	}
	password, err := os.ReadFile(filepath.Join(folder, "postgres-password"))
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := settings.database.url.User.Password(); got != string(password) || len(got) < 32 {
		t.Errorf("the URL has the password %q, the database %q", got, password)
	}
	if _, err := chooseSeal(settings.database, settings.sealFile, ""); err != nil {
		t.Error(err)
	}
	info, err := os.Stat(filepath.Join(folder, "counterfoil.seal"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	return folder
}

// The unit's command is one, and systemd finds nothing wrong with the unit.
func TestSystemdUnit(t *testing.T) {
	unit := deployed(t, "counterfoil.service")
	line := regexp.MustCompile(`(?m)^ExecStart=(\S+) (.*)$`).FindStringSubmatch(unit)
	if line == nil {
		t.Fatal("there is no ExecStart")
	}
	wouldRun(t, strings.Fields(line[2]))
	for _, want := range []string{"DynamicUser=yes", "StateDirectory=counterfoil", "ProtectSystem=strict", "NoNewPrivileges=yes", "CapabilityBoundingSet=\n", "UMask=0077"} {
		if !strings.Contains(unit, want) {
			t.Errorf("the unit lacks %s", want)
		}
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		return // the rest is its judgement
	}
	counterfoil, err := exec.LookPath("counterfoil")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "counterfoil.service")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(unit, line[1]+" ", counterfoil+" ")), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(analyze, "verify", file).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}
