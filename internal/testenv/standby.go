//go:build unix

package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// StartStandby copies a running server into a new folder under parent and
// starts the copy as its hot standby, on a port of its own. It returns when
// the standby streams. With synchronous, commits on the primary wait for this
// standby (and for no other) from then on; without, the primary is left as it is.
// Promoted, it waits for nobody.
func StartStandby(ctx context.Context, primary *Postgres, parent string, synchronous bool) (*Postgres, error) {
	name := ""
	p, err := newPostgres(ctx, primary.bin, parent, func(p *Postgres) error {
		p.name = strings.ReplaceAll(filepath.Base(p.dir), "-", "_")
		name = p.name
		err := p.run(ctx, "pg_basebackup", "--pgdata="+p.data(), "--dbname="+primary.URL,
			"--checkpoint=fast", "--wal-method=stream", "--write-recovery-conf", "--no-sync")
		if err != nil {
			return err
		}
		// A promoted standby must not wait for those of the old primary.
		return p.configure("synchronous_standby_names", "")
	})
	if err != nil {
		return nil, err
	}
	state := "%"
	if synchronous {
		state = "sync"
		if err := primary.Configure("synchronous_standby_names", name); err != nil {
			return nil, errors.Join(err, p.Stop())
		}
	}
	err = primary.await(ctx, fmt.Sprintf(
		`SELECT EXISTS (SELECT 1 FROM pg_stat_replication WHERE application_name = '%s' AND state = 'streaming' AND sync_state LIKE '%s')`, name, state))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the standby does not stream: %w", err), p.Stop())
	}
	return p, nil
}

// Configure changes a setting of the running server, in the way of ALTER
// SYSTEM and a reload. Settings that are given when the server starts (the
// port, fsync, synchronous_commit …) cannot be changed.
func (p *Postgres) Configure(name, value string) error {
	if err := p.configure(name, value); err != nil {
		return err
	}
	return p.cmd.Process.Signal(syscall.SIGHUP)
}

// configure writes a setting into the file of ALTER SYSTEM, where the last line counts.
func (p *Postgres) configure(name, value string) error {
	file, err := os.OpenFile(filepath.Join(p.data(), "postgresql.auto.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(file, "%s = '%s'\n", name, strings.ReplaceAll(value, "'", "''"))
	return errors.Join(err, file.Close())
}

// Promote makes a standby the primary of a history of its own. It returns
// when the server takes writes.
func (p *Postgres) Promote(ctx context.Context) error {
	if err := p.run(ctx, "pg_ctl", "promote", "-D", p.data(), "--wait"); err != nil {
		return err
	}
	return p.await(ctx, `SELECT NOT pg_is_in_recovery()`)
}

// Kill ends the server as a power cut would, all its processes at once. Its
// files stay, for Restart or Stop.
func (p *Postgres) Kill() error {
	children, err := p.signal(syscall.SIGKILL)
	if err != nil {
		return err
	}
	<-p.done
	for _, pid := range children {
		for alive(pid) {
			time.Sleep(time.Millisecond)
		}
	}
	return nil
}

// Restart starts a server that was killed, on the same port.
func (p *Postgres) Restart(ctx context.Context) error {
	select {
	case <-p.done:
		return p.start(ctx)
	default:
		return errors.New("postgres is running")
	}
}

// Pause makes the server silent: its connections stay open, and nothing is
// answered until Resume.
func (p *Postgres) Pause() error {
	_, err := p.signal(syscall.SIGSTOP)
	return err
}

// Resume ends a Pause.
func (p *Postgres) Resume() error {
	_, err := p.signal(syscall.SIGCONT)
	return err
}

// signal reaches the server and all its processes, which it returns.
func (p *Postgres) signal(sig syscall.Signal) ([]int, error) {
	send := func(sig syscall.Signal) error {
		if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		return nil
	}
	// Stopped, it makes no new ones; once it is gone they are nobody's.
	if err := send(syscall.SIGSTOP); err != nil {
		return nil, err
	}
	children := p.children()
	if err := send(sig); err != nil {
		return nil, err
	}
	for _, pid := range children {
		if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return nil, err
		}
	}
	return children, nil
}

// children lists the processes of the server, one for each connection and its
// own. Only Linux tells; elsewhere they notice by themselves that it is gone.
func (p *Postgres) children() []int {
	select {
	case <-p.done:
		return nil
	default:
	}
	pid := p.cmd.Process.Pid
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return nil
	}
	var pids []int
	for _, word := range strings.Fields(string(text)) {
		if pid, err := strconv.Atoi(word); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// alive reports whether a process still runs; one that only waits to be
// collected does not.
func alive(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(text), ") ")
	return !strings.HasPrefix(state, "Z") && !strings.HasPrefix(state, "X")
}

// await asks a question until the answer is true.
func (p *Postgres) await(ctx context.Context, question string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		out, err := p.command(ctx, "psql", "--no-psqlrc", "--tuples-only", "--no-align", "--command="+question, p.URL).CombinedOutput()
		if err == nil && strings.TrimSpace(string(out)) == "t" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w\n%s", question, errors.Join(ctx.Err(), err), out)
		case <-p.done:
			return fmt.Errorf("postgres ended: %w", p.err)
		case <-tick.C:
		}
	}
}
