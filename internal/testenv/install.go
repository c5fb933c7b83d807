//go:build unix

package testenv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// need is a thing the tests use, how it is found, and the Debian packages
// that bring it.
type need struct {
	name     string
	packages []string
	find     func() error
}

// needs lists everything, in the order in which it is looked for.
func needs() []need {
	return []need{
		{"certificates", []string{"ca-certificates"}, findCertificates},
		{"git", []string{"git"}, onPath("git")},
		{"C compiler", []string{"gcc", "libc6-dev"}, findCompiler},
		{"PostgreSQL", []string{"postgresql"}, func() error { _, err := findPostgres(); return err }},
		{"Chromium", []string{"chromium"}, func() error { _, err := findChromium(); return err }},
		{"Node", []string{"nodejs"}, findNode},
		{"npm", []string{"npm"}, onPath("npm")},
		{"nginx", []string{"nginx"}, func() error { _, err := findNginx(); return err }},
		{"Caddy", []string{"caddy"}, func() error { _, err := findCaddy(); return err }},
		{"Redis", []string{"redis-server"}, func() error { _, err := findRedis(); return err }},
	}
}

// install brings what is missing with apt-get, and fails if something is
// missing still.
func (e *Env) install(ctx context.Context, log io.Writer) error {
	var names, packages []string
	for _, n := range needs() {
		if n.find() != nil {
			names = append(names, n.name)
			packages = append(packages, n.packages...)
		}
	}
	if len(packages) == 0 {
		return nil
	}
	fmt.Fprintf(log, "missing: %s\n", strings.Join(names, ", "))
	if err := aptInstall(ctx, e.dir, packages, log); err != nil {
		return fmt.Errorf("missing %s: %w", strings.Join(names, ", "), err)
	}
	var errs []error
	for _, n := range needs() {
		if err := n.find(); err != nil {
			errs = append(errs, fmt.Errorf("%s is missing after its installation: %w", n.name, err))
		}
	}
	return errors.Join(errs...)
}

// aptInstall installs Debian packages, three attempts, as root or through a
// sudo that asks nothing.
func aptInstall(ctx context.Context, dir string, packages []string, log io.Writer) (err error) {
	byHand := "apt-get install -y " + strings.Join(packages, " ")
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("this machine has no apt-get; install by hand what Debian calls %s", strings.Join(packages, " "))
	}
	var sudo []string
	if os.Geteuid() != 0 {
		if exec.CommandContext(ctx, "sudo", "-n", "true").Run() != nil {
			return fmt.Errorf("no right to install packages; run once as root: %s", byHand)
		}
		sudo = []string{"sudo", "-n"}
	}
	root := func(args ...string) error {
		args = append(sudo[:len(sudo):len(sudo)], args...)
		fmt.Fprintf(log, "$ %s\n", strings.Join(args, " "))
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) } // lets dpkg finish its package
		cmd.WaitDelay = time.Minute
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		return nil
	}
	apt := []string{"env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "DPkg::Lock::Timeout=180", "-o", "Dpkg::Use-Pty=0"}

	restore, err := keepStill(dir, root)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, restore()) }()

	// Debian's PostgreSQL package makes a cluster and starts it. The tests
	// use their own, and a server started from here would outlive them.
	const clusters = "/etc/postgresql-common/createcluster.d/counterfoil-tests.conf"
	quiet := filepath.Join(dir, "createcluster.conf")
	if err := os.WriteFile(quiet, []byte("create_main_cluster = false\n"), 0o644); err != nil {
		return err
	}
	if err := root("install", "-D", "-m", "0644", quiet, clusters); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root("rm", "-f", clusters)) }()

	for attempt := range 3 {
		if attempt > 0 {
			fmt.Fprintf(log, "apt-get failed (%v), trying again\n", err)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Duration(attempt) * 5 * time.Second):
			}
		}
		if err = root(append(apt, "update")...); err != nil {
			continue
		}
		if err = root(append(append(apt, "install", "-y", "--no-install-recommends"), packages...)...); err == nil {
			return nil
		}
	}
	return fmt.Errorf("%s: %w", byHand, err)
}

// keepStill keeps packages from starting their services while they are
// installed: the tests start their own, on ports of their own. A machine that
// has a policy keeps it.
func keepStill(dir string, root func(...string) error) (restore func() error, err error) {
	const policy = "/usr/sbin/policy-rc.d" // asked by invoke-rc.d and deb-systemd-invoke; 101: not allowed
	if _, err := os.Lstat(policy); err == nil {
		return func() error { return nil }, nil
	}
	still := filepath.Join(dir, "policy-rc.d")
	if err := os.WriteFile(still, []byte("#!/bin/sh\nexit 101\n"), 0o755); err != nil {
		return nil, err
	}
	if err := root("install", "-m", "0755", still, policy); err != nil {
		return nil, err
	}
	return func() error { return root("rm", "-f", policy) }, nil
}

// onPath finds a program by its name.
func onPath(name string) func() error {
	return func() error {
		_, err := exec.LookPath(name)
		return err
	}
}

// findCompiler insists on a C compiler that finds the C library's headers:
// the race detector needs cgo.
func findCompiler() error {
	cc := os.Getenv("CC")
	if cc == "" {
		cc = "gcc"
	}
	cmd := exec.Command(cc, "-E", "-x", "c", "-")
	cmd.Stdin = strings.NewReader("#include <stdlib.h>\n#include <pthread.h>\n")
	return cmd.Run()
}

// findCertificates looks where crypto/x509 looks on Linux. Without them
// neither the Go module proxy nor npm can be asked.
func findCertificates() error {
	if runtime.GOOS != "linux" || os.Getenv("SSL_CERT_DIR") != "" {
		return nil
	}
	_, err := certificateFile()
	return err
}

// certificateFile returns the machine's file of certificate authorities.
func certificateFile() (string, error) {
	files := []string{
		"/etc/ssl/certs/ca-certificates.crt",
		"/etc/pki/tls/certs/ca-bundle.crt",
		"/etc/ssl/ca-bundle.pem",
		"/etc/ssl/cert.pem",
	}
	if given := os.Getenv("SSL_CERT_FILE"); given != "" {
		files = []string{given}
	}
	for _, file := range files {
		if _, err := os.Stat(file); err == nil {
			return file, nil
		}
	}
	return "", errors.New("no file of certificate authorities")
}

// findNginx returns the path of an nginx that can ask a gateway.
func findNginx() (string, error) {
	path, err := program(NginxBin, "nginx", "/usr/sbin/nginx")
	if err != nil {
		return "", err
	}
	out, err := exec.Command(path, "-V").CombinedOutput()
	if err == nil && !strings.Contains(string(out), "http_auth_request_module") {
		err = errors.New("it is built without http_auth_request_module")
	}
	if err != nil {
		return "", fmt.Errorf("%s -V: %w", path, err)
	}
	return path, nil
}

// findCaddy returns the path of Caddy.
func findCaddy() (string, error) { return program(CaddyBin, "caddy", "/usr/bin/caddy") }

// program finds a program: where the variable says, on the path, or where
// Debian puts it, since not everybody's path has /usr/sbin.
func program(variable, name, debian string) (string, error) {
	if given := os.Getenv(variable); given != "" {
		return exec.LookPath(given)
	}
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	return exec.LookPath(debian)
}

// findChromium returns the path of a Chromium or Chrome that starts.
func findChromium() (string, error) {
	names := []string{"chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chromium-headless-shell"}
	if given := os.Getenv(ChromiumBin); given != "" {
		names = []string{given}
	}
	for _, name := range names {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		out, err := exec.CommandContext(ctx, path, "--version").CombinedOutput()
		cancel()
		if err != nil {
			return "", fmt.Errorf("%s --version: %w\n%s", path, err, out)
		}
		return path, nil
	}
	return "", fmt.Errorf("found none of %s", strings.Join(names, ", "))
}
