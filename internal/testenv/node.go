//go:build unix

package testenv

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// oldestNode is what Debian 12 brings.
const oldestNode = 18

// findNode insists on a Node that the test packages support.
func findNode() error {
	out, err := exec.Command("node", "--version").Output()
	if err != nil {
		return err
	}
	return checkNode(string(out))
}

func checkNode(version string) error {
	version = strings.TrimSpace(version)
	major, err := strconv.Atoi(strings.SplitN(strings.TrimPrefix(version, "v"), ".", 2)[0])
	if err != nil {
		return fmt.Errorf("node --version says %q", version)
	}
	if major < oldestNode {
		return fmt.Errorf("node is %s, the tests need %d or newer", version, oldestNode)
	}
	return nil
}

// installNodeModules runs npm ci in dir, unless node_modules is already what
// the lock file says. Three attempts: registries have bad moments.
func installNodeModules(ctx context.Context, dir string, log io.Writer) error {
	var want string
	for _, name := range []string{"package.json", "package-lock.json"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		want += fmt.Sprintf("%x %s\n", sha256.Sum256(data), name)
	}
	stamp := filepath.Join(dir, "node_modules", ".installed")
	if have, err := os.ReadFile(stamp); err == nil && string(have) == want {
		return nil
	}
	env := os.Environ()
	if file, err := certificateFile(); err == nil && os.Getenv("NODE_EXTRA_CA_CERTS") == "" {
		// Node brings its own authorities; a network with one more has told
		// the machine, not Node.
		env = append(env, "NODE_EXTRA_CA_CERTS="+file)
	}
	var err error
	for attempt := range 3 {
		if attempt > 0 {
			fmt.Fprintf(log, "npm ci failed (%v), trying again\n", err)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Duration(attempt) * 5 * time.Second):
			}
		}
		fmt.Fprintf(log, "$ npm ci --prefix %s\n", dir)
		cmd := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
		cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, env, log, log
		cmd.WaitDelay = 10 * time.Second
		if err = cmd.Run(); err == nil {
			return os.WriteFile(stamp, []byte(want), 0o644)
		}
	}
	return fmt.Errorf("npm ci in %s: %w", dir, err)
}
