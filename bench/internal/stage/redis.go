//go:build linux

package stage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil/internal/testenv"
)

// Redis is a server of the benchmark's own, which syncs every write before it
// answers (appendfsync always).
type Redis struct {
	*testenv.Redis
	dir string
}

// StartRedis starts one in a temporary folder. Its syncs to disk take longer by
// delay.
func StartRedis(ctx context.Context, delay time.Duration) (*Redis, error) {
	bin, err := redisBin()
	if err != nil {
		return nil, err
	}
	slow, err := SlowSync(delay)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "counterfoil-bench-")
	if err != nil {
		return nil, err
	}
	r := &Redis{dir: dir}
	wrapper := filepath.Join(dir, "redis-server")
	script := fmt.Sprintf("#!/bin/sh\nexec %s %s \"$@\"\n", strings.Join(slow, " "), bin)
	if err = os.WriteFile(wrapper, []byte(script), 0o755); err == nil {
		r.Redis, err = testenv.StartRedis(ctx, wrapper, dir)
	}
	if err != nil {
		return nil, errors.Join(err, r.Stop())
	}
	return r, nil
}

// Stop ends the server and removes its files.
func (r *Redis) Stop() error {
	var err error
	if r.Redis != nil {
		err = r.Redis.Stop()
	}
	return errors.Join(err, os.RemoveAll(r.dir))
}

// Memory is what the data takes, in bytes.
func (r *Redis) Memory(ctx context.Context) (int64, error) {
	text, err := r.Info(ctx, "used_memory_dataset")
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(text, 10, 64)
}

func redisBin() (string, error) {
	if given := os.Getenv(testenv.RedisBin); given != "" {
		return given, nil
	}
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		return "", fmt.Errorf("found no Redis: set %s to the path of redis-server", testenv.RedisBin)
	}
	return bin, nil
}
