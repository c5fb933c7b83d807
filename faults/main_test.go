//go:build linux

package faults

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/internal/testenv"
)

// binary is the command as people run it, built once.
var binary string

// helpers are programs that this test binary is when it is called with their
// name in helperVariable.
var helpers = map[string]func([]string) error{}

const helperVariable = "FAULTS_HELPER"

func TestMain(m *testing.M) {
	if name := os.Getenv(helperVariable); name != "" {
		if err := helpers[name](os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	os.Exit(built(m))
}

func built(m *testing.M) int {
	dir, err := testenv.TempDir()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary = filepath.Join(dir, "counterfoil")
	build := exec.Command("go", "build", "-o", binary, "../cmd/counterfoil")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

var seedFlag = flag.Uint64("seed", 0, "seed of the random times; 0: another each time")

// newRandom prints its seed.
func newRandom(t *testing.T) *rand.Rand {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// need returns a variable of the environment that make test sets.
func need(t *testing.T, variable string) string {
	t.Helper()
	value := os.Getenv(variable)
	if value == "" {
		if os.Getenv(testenv.All) == "1" {
			t.Fatalf("%s is not set", variable)
		}
		t.Skipf("%s is not set: run make test", variable)
	}
	return value
}

// folder is a temporary one that PostgreSQL's own user can enter.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := testenv.TempDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// command runs the command to its end and returns what it prints.
func command(t *testing.T, args ...string) string {
	t.Helper()
	var stdout, stderr strings.Builder
	cmd := exec.Command(binary, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = cleanEnv(), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("counterfoil %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(stdout.String())
}

// cleanEnv is an environment without any of our variables.
func cleanEnv(extra ...string) []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "COUNTERFOIL_") {
			env = append(env, v)
		}
	}
	return append(env, extra...)
}
