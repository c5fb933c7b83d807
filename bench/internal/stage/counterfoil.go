//go:build linux

package stage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Counterfoil is a running "counterfoil serve".
type Counterfoil struct {
	*Process
	APIKey string // with every backend scope
}

// Build builds the counterfoil binary as make build does, into dir. With
// profiled it also serves net/http/pprof, on the address that the variable
// profileVariable names.
func Build(ctx context.Context, dir string, profiled bool) (string, error) {
	where := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/counterfoil/counterfoil")
	out, err := where.Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	root := strings.TrimSpace(string(out))
	binary := filepath.Join(dir, "counterfoil")
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", binary}
	if profiled {
		overlay, err := profiler(root, dir)
		if err != nil {
			return "", err
		}
		args = append(args, "-overlay", overlay)
	}
	build := exec.CommandContext(ctx, "go", append(args, "./cmd/counterfoil")...)
	build.Dir = root
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return binary, nil
}

const profileVariable = "COUNTERFOIL_BENCH_PPROF"

// profiler writes an overlay of go build that adds one file to the command.
func profiler(root, dir string) (string, error) {
	source := fmt.Sprintf(`package main

import (
	"net/http"
	_ "net/http/pprof"
	"os"
)

func init() {
	if address := os.Getenv(%q); address != "" {
		go http.ListenAndServe(address, nil)
	}
}
`, profileVariable)
	added := filepath.Join(dir, "pprof.go.txt")
	replace := map[string]map[string]string{"Replace": {filepath.Join(root, "cmd", "counterfoil", "pprof.go"): added}}
	overlay, err := json.Marshal(replace)
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "overlay.json")
	return name, errors.Join(os.WriteFile(added, []byte(source), 0o600), os.WriteFile(name, overlay, 0o600))
}

// Serve starts "counterfoil serve" on a database, with its defaults, and makes
// an API key. Access tokens live long enough for a round of measurements.
func Serve(ctx context.Context, binary, database string, options ServeOptions) (*Counterfoil, error) {
	address, scheme := options.Address, "http"
	if address == "" {
		var err error
		if address, err = FreeAddress(); err != nil {
			return nil, err
		}
	}
	command, err := SlowSync(options.SyncDelay)
	if err != nil {
		return nil, err
	}
	if options.Processors > 0 {
		command = append(command, "taskset", "--cpu-list", fmt.Sprintf("0-%d", options.Processors-1))
	}
	environ := slices.Clone(options.Environ)
	if options.Profile != "" {
		environ = append(environ, profileVariable+"="+options.Profile)
	}
	if !strings.HasPrefix(database, "sqlite:") {
		environ = append(environ, "COUNTERFOIL_SEAL="+strings.Repeat("A", 43)+"=")
	}
	command = append(command, binary, "serve", "--listen", address, "--database", database, "--token-lifetime", "5m", "--log-level", "warn")
	if options.Certificate != "" {
		scheme = "https"
		command = append(command, "--tls-cert", options.Certificate, "--tls-key", options.CertificateKey)
	}
	if options.Sessions != "" {
		command = append(command, "--sessions", options.Sessions)
	}
	if options.Issuer != "" {
		command = append(command, "--issuer", options.Issuer)
	}
	process, err := start(ctx, scheme, address, "/readyz", environ, command)
	if err != nil {
		return nil, err
	}
	if options.APIKey != "" {
		return &Counterfoil{process, options.APIKey}, nil
	}
	create := []string{"api-key", "create", "--name", "bench", "--database", database}
	if options.Sessions != "" {
		create = append(create, "--sessions", options.Sessions)
	}
	out, err := exec.CommandContext(ctx, binary, create...).Output()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("api-key create: %w", err), process.Stop())
	}
	return &Counterfoil{process, strings.TrimSpace(string(out))}, nil
}

// ServeOptions are for special measurements.
type ServeOptions struct {
	SyncDelay time.Duration // see SlowSync
	Profile   string        // address for net/http/pprof, with a binary that is built so
	Address   string        // where it listens; empty: anywhere
	Issuer    string        // empty: its address
	APIKey    string        // one that the database has already
	Sessions  string        // URL of the Redis that holds the sessions; empty: the database does
	Environ   []string      // more variables, NAME=value
	// Processors is how many it may run on; 0: all.
	Processors int
	// Certificate and CertificateKey are files, PEM. With them it speaks TLS.
	Certificate, CertificateKey string
}

// Profile fetches a CPU profile that covers the next seconds into a file.
func Profile(ctx context.Context, address, file string, seconds int) (err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", address, seconds), nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("profile: answered %s", response.Status)
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, response.Body)
	return errors.Join(err, out.Close())
}
