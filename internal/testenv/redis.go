//go:build unix

package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Redis is a Redis server of the tests' own: a free port of 127.0.0.1, a
// folder of its own, no password, every write synced before it is answered.
// Its methods are not for concurrent use.
type Redis struct {
	Addr string // host:port
	URL  string // redis://host:port
	Dir  string // of its files; may be read and replaced while it is down

	bin  string
	cmd  *exec.Cmd
	done chan struct{} // closed when the server has ended
	err  error         // how it ended; read after done
}

// redisDefaults come first in the configuration; a caller's lines, after
// them, win.
const redisDefaults = `bind 127.0.0.1
protected-mode no
daemonize no
supervised no
appendonly yes
appendfsync always
save ""
shutdown-timeout 0
repl-diskless-sync-delay 0
repl-ping-replica-period 1
`

// StartRedis starts the given redis-server in a new folder under parent and
// returns when it takes commands. Each option is a line of its configuration,
// such as "appendfsync everysec" or "maxmemory 20mb".
func StartRedis(ctx context.Context, bin, parent string, options ...string) (*Redis, error) {
	dir, err := os.MkdirTemp(parent, "redis-")
	if err != nil {
		return nil, err
	}
	for attempt := range 3 {
		var port int
		if port, err = redisPort(); err != nil {
			break
		}
		addr := "127.0.0.1:" + strconv.Itoa(port)
		r := &Redis{Addr: addr, URL: "redis://" + addr, Dir: dir, bin: bin}
		lines := append([]string{"port " + strconv.Itoa(port), "dir " + dir}, options...)
		config := redisDefaults + strings.Join(lines, "\n") + "\n"
		if err = os.WriteFile(r.config(), []byte(config), 0o600); err != nil {
			break
		}
		if err = r.Restart(ctx); err == nil {
			return r, nil
		}
		text, _ := os.ReadFile(r.log())
		if !strings.Contains(string(text), "Address already in use") || attempt == 2 {
			break
		}
	}
	return nil, errors.Join(err, os.RemoveAll(dir))
}

func (r *Redis) config() string { return filepath.Join(r.Dir, "redis.conf") }
func (r *Redis) log() string    { return filepath.Join(r.Dir, "redis.log") }

// redisPort returns a free port whose companion, 10000 higher, the cluster
// bus can have.
func redisPort() (int, error) {
	for {
		port, err := freePort()
		if err != nil || port < 50000 {
			return port, err
		}
	}
}

// Restart starts a server that is down again: same port, same files. It
// returns when the server has read them and takes commands.
func (r *Redis) Restart(ctx context.Context) error {
	log, err := os.OpenFile(r.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	r.cmd = exec.Command(r.bin, r.config())
	r.cmd.Dir = r.Dir
	r.cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + r.Dir, "LC_ALL=C.UTF-8", "TZ=UTC"}
	r.cmd.SysProcAttr = OwnGroup(nil, syscall.SIGKILL)
	r.cmd.Stdout, r.cmd.Stderr = log, log
	r.err, r.done = nil, make(chan struct{})
	if err := errors.Join(r.cmd.Start(), log.Close()); err != nil {
		return err
	}
	go func() {
		r.err = r.cmd.Wait()
		close(r.done)
	}()
	// A foreign server on a port that was taken meanwhile must not pass for
	// this one.
	err = r.Wait(ctx, func(info string) bool {
		return RedisField(info, "process_id") == strconv.Itoa(r.Pid()) && RedisField(info, "loading") == "0"
	})
	if err != nil {
		text, _ := os.ReadFile(r.log())
		return errors.Join(fmt.Errorf("%w\n%s", err, text), r.Kill())
	}
	return nil
}

// Pid is the server's process id.
func (r *Redis) Pid() int { return r.cmd.Process.Pid }

// Kill is kill -9, by process id. It returns when the server is gone.
func (r *Redis) Kill() error {
	if err := r.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-r.done
	return nil
}

// Pause stops the server where it is, as a frozen machine does; Resume lets
// it go on.
func (r *Redis) Pause() error { return r.cmd.Process.Signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (r *Redis) Resume() error { return r.cmd.Process.Signal(syscall.SIGCONT) }

// Stop ends the server and removes its files. A child that it had for writing
// its data down outlives it for a moment, and may still make files.
func (r *Redis) Stop() error {
	err := r.Kill()
	for range 100 {
		removing := os.RemoveAll(r.Dir)
		if removing == nil {
			return err
		}
		if !errors.Is(removing, syscall.ENOTEMPTY) {
			return errors.Join(err, removing)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return errors.Join(err, os.RemoveAll(r.Dir))
}

// Do sends one command and returns its answer: the text, the number, or the
// lines of a list joined by newlines.
func (r *Redis) Do(ctx context.Context, command ...string) (string, error) {
	return redisDo(ctx, r.Addr, command...)
}

// Wait returns when INFO satisfies the condition.
func (r *Redis) Wait(ctx context.Context, ok func(info string) bool) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		info, err := r.Do(ctx, "INFO", "everything")
		if err == nil && ok(info) {
			return nil
		}
		last = err
		select {
		case <-ctx.Done():
			return fmt.Errorf("redis at %s is not what was waited for: %w (last answer: %w)", r.Addr, ctx.Err(), last)
		case <-r.done:
			return fmt.Errorf("redis at %s ended: %w", r.Addr, r.err)
		case <-tick.C:
		}
	}
}

// ReplicaOf makes the server a replica of the master and returns when it has
// all that the master has now. It forgets what it held. Not for clusters.
func (r *Redis) ReplicaOf(ctx context.Context, master *Redis) error {
	host, port, _ := strings.Cut(master.Addr, ":")
	if _, err := r.Do(ctx, "REPLICAOF", host, port); err != nil {
		return err
	}
	return r.Wait(ctx, func(info string) bool {
		return RedisField(info, "master_link_status") == "up" && RedisField(info, "master_sync_in_progress") == "0"
	})
}

// Promote makes a replica a master with what it holds. Not for clusters.
func (r *Redis) Promote(ctx context.Context) error {
	_, err := r.Do(ctx, "REPLICAOF", "NO", "ONE")
	return err
}

// Info returns one field of INFO, such as "role" or "run_id"; "" if there is
// none.
func (r *Redis) Info(ctx context.Context, field string) (string, error) {
	info, err := r.Do(ctx, "INFO", "everything")
	return RedisField(info, field), err
}

// RedisField returns a field of the answer to INFO or CLUSTER INFO; "" if there
// is none.
func RedisField(info, field string) string {
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), field+":"); ok {
			return value
		}
	}
	return ""
}

// findRedis returns the path of a redis-server, 7 or newer: where the
// variable says, on the path, or where Debian puts it.
func findRedis() (string, error) {
	path, err := program(RedisBin, "redis-server", "/usr/bin/redis-server")
	if err != nil {
		return "", err
	}
	out, err := exec.Command(path, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("%s --version: %w", path, err)
	}
	return path, checkRedis(string(out))
}

var redisVersion = regexp.MustCompile(`v=(\d+)\.`)

func checkRedis(version string) error {
	m := redisVersion.FindStringSubmatch(version)
	if m == nil {
		return fmt.Errorf("redis-server --version says %q", version)
	}
	if major, err := strconv.Atoi(m[1]); err != nil || major < 7 {
		return fmt.Errorf("redis-server is %s, the tests need 7 or newer", strings.TrimSpace(version))
	}
	return nil
}
