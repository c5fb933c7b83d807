// Command release builds what is published: an archive for each platform, a
// bill of materials for each (CycloneDX), the licences of all that is linked,
// and SHA256SUMS over them. The same commit, version and Go give the same
// bytes in every folder and on every machine.
//
//	release -version v1.2.3 [-out dist] [-target linux/amd64,…]
package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

// targets are the platforms that are released.
var targets = []string{"linux/amd64", "linux/arm64", "darwin/amd64", "darwin/arm64", "windows/amd64", "windows/arm64"}

// release is one run.
type release struct {
	root     string // of the repository
	out      string
	version  string
	revision string    // of the commit
	at       time.Time // of the commit: the date of every file
}

var semantic = regexp.MustCompile(`^v\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$`)

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("release", flag.ContinueOnError)
	version := flags.String("version", "", "of the release, such as v1.2.3")
	out := flags.String("out", "dist", "folder for what is made; it must not be there, or be empty")
	only := flags.String("target", strings.Join(targets, ","), "platforms")
	dirty := flags.Bool("dirty", false, "build what is not committed too, to try it out; such a build cannot be repeated")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if !semantic.MatchString(*version) {
		return fmt.Errorf("-version %q: want v1.2.3 (make release VERSION=v1.2.3)", *version)
	}
	root, err := git(ctx, ".", "rev-parse", "--show-toplevel")
	if err != nil {
		return err
	}
	r := &release{root: root, out: *out, version: *version}
	if err := r.commit(ctx, *dirty); err != nil {
		return err
	}
	return r.make(ctx, strings.Split(*only, ","))
}

// commit finds out what is built, and from when it is.
func (r *release) commit(ctx context.Context, dirty bool) error {
	changed, err := git(ctx, r.root, "status", "--porcelain")
	if err != nil {
		return err
	}
	if changed != "" && !dirty {
		return errors.New("there are changes that are not committed: nobody could build this again")
	}
	head, err := git(ctx, r.root, "log", "-1", "--format=%H %ct")
	if err != nil {
		return err
	}
	revision, seconds, _ := strings.Cut(head, " ")
	at, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return fmt.Errorf("date of the commit: %w", err)
	}
	r.revision, r.at = revision, time.Unix(at, 0).UTC()
	return nil
}

func (r *release) make(ctx context.Context, list []string) error {
	if err := os.MkdirAll(r.out, 0o755); err != nil {
		return err
	}
	if entries, err := os.ReadDir(r.out); err != nil || len(entries) > 0 {
		return errors.Join(err, fmt.Errorf("%s is not empty: what is in it would look like a part of this release", r.out))
	}
	work, err := os.MkdirTemp("", "counterfoil-release-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }() // only what was built on the way
	licences, err := r.licences(ctx)
	if err != nil {
		return err
	}
	for _, target := range list {
		if !slices.Contains(targets, target) {
			return fmt.Errorf("-target %q: want one of %s", target, strings.Join(targets, ", "))
		}
		began := time.Now()
		if err := r.target(ctx, work, target, licences); err != nil {
			return fmt.Errorf("%s: %w", target, err)
		}
		fmt.Printf("%-14s %s\n", target, time.Since(began).Round(time.Second))
	}
	return r.sums()
}

// target makes the archive and the bill of materials for one platform.
func (r *release) target(ctx context.Context, work, target string, licences []byte) error {
	system, arch, _ := strings.Cut(target, "/")
	name := "counterfoil-" + r.version + "-" + system + "-" + arch
	binary := filepath.Join(work, name)
	program := "counterfoil"
	if system == "windows" {
		program += ".exe"
	}
	if err := r.build(ctx, system, arch, binary); err != nil {
		return err
	}
	bill, err := billOf(binary, r, target)
	if err != nil {
		return err
	}
	files := []file{{program, 0o755, nil}, {"LICENSES.txt", 0o644, licences}}
	if files[0].data, err = os.ReadFile(binary); err != nil {
		return err
	}
	more := []string{"LICENSE", "README.md", "CHANGELOG.md", "docs/counterfoil.conf"}
	if system == "linux" {
		more = append(more, "deploy/counterfoil.service")
	}
	for _, path := range more {
		data, err := os.ReadFile(filepath.Join(r.root, filepath.FromSlash(path)))
		if err != nil {
			return err
		}
		files = append(files, file{filepath.Base(path), 0o644, data})
	}
	if err := os.WriteFile(filepath.Join(r.out, name+".cdx.json"), bill, 0o644); err != nil {
		return err
	}
	if system == "windows" {
		return writeZip(filepath.Join(r.out, name+".zip"), name, files, r.at)
	}
	return writeTar(filepath.Join(r.out, name+".tar.gz"), name, files, r.at)
}

// build compiles the command for a platform. Nothing of this machine, its
// folders or its environment goes into it.
func (r *release) build(ctx context.Context, system, arch, out string) error {
	const stamp = "github.com/counterfoil/counterfoil/internal/stamp."
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-mod=readonly",
		"-ldflags", "-s -w -buildid= -X "+stamp+"Version="+r.version+" -X "+stamp+"Revision="+r.revision, "-o", out, "./cmd/counterfoil")
	cmd.Dir = r.root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+system, "GOARCH="+arch, "GOAMD64=v1", "GOARM64=v8.0",
		"GOFLAGS=", "GOEXPERIMENT=", "GOWORK=off", "GOTOOLCHAIN=local", "GODEBUG=")
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, said)
	}
	return nil
}

// sums writes SHA256SUMS, in the form of sha256sum.
func (r *release) sums() error {
	entries, err := os.ReadDir(r.out) // sorted
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(r.out, e.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%x  %s\n", sha256.Sum256(data), e.Name())
	}
	fmt.Printf("%s, %s, %s, into %s\n", r.version, r.revision[:12], runtime.Version(), r.out)
	return os.WriteFile(filepath.Join(r.out, "SHA256SUMS"), []byte(b.String()), 0o644)
}

func git(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w", args[0], err)
	}
	return strings.TrimSpace(string(out)), nil
}
