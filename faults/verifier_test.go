//go:build linux

package faults

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/internal/testenv"
	"github.com/counterfoil/counterfoil/verify"
)

// A network that loses what a verifier and its node say to one another: the
// verifier takes good tokens all the same, says how old its knowledge is, and
// is up to date soon after. Routes that must hear of revocations refuse.
func TestPartitionVerifier(t *testing.T) {
	t.Parallel()
	database := newDatabase(t)
	s := newSystem(t, database, database, database)
	s.start()
	line := newProxy(t, strings.TrimPrefix(s.nodes[0].url, "http://"))
	behind := s.watch("http://" + line.addr())
	for name, cut := range map[string]func(){
		"both ways":   func() { line.cut(false, false) },
		"to node":     func() { line.cut(false, true) },
		"to verifier": func() { line.cut(true, false) },
		"forgotten":   line.forget,
	} {
		s.goOn(200)
		s.fresh(behind) // on a busy machine it may be a second behind
		began := time.Now()
		cut()
		s.wait("the verifier knows how old its knowledge is", patience, func() bool {
			stats := behind.verifier.Stats()
			// What the node says still arrives while it does not hear.
			return name == "forgotten" || name == "to node" || stats.FeedAgeKnown && stats.FeedAge > 2*feedBound && stats.FeedAge < time.Since(began)+time.Second
		})
		s.goOn(300)
		line.heal()
		t.Logf("%s: up to date %s after the network", name, round(s.fresh(behind)))
	}
	s.finish()
}

func init() { helpers["verifier"] = verifierProcess }

// verifierProcess is a service with a verifier. For each line with a token on
// stdin it answers with a verdict.
func verifierProcess(args []string) error {
	v, err := verify.New(context.Background(), verify.Config{
		Issuer: issuer, Audience: "app", Authority: args[0], APIKey: args[1],
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		return err
	}
	if err := v.Wait(context.Background()); err != nil {
		return err
	}
	plain, strict := v.Checker(), v.Checker(verify.MaxFeedAge(feedBound))
	out := json.NewEncoder(os.Stdout)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var is verdict
		stats := v.Stats()
		is.Age, is.Known = stats.FeedAge, stats.FeedAgeKnown
		is.Plain = toText(plain(context.Background(), lines.Text()))
		is.Strict = toText(strict(context.Background(), lines.Text()))
		if err := out.Encode(is); err != nil {
			return err
		}
	}
	return nil
}

// verdict is what a verifier process says of a token.
type verdict struct {
	Age           time.Duration
	Known         bool
	Plain, Strict string // empty: taken
}

func toText(_ *verify.Claims, err error) string {
	if err == nil {
		return ""
	}
	if errors.Is(err, verify.ErrUnavailable) {
		return verify.CodeUnavailable
	}
	return err.Error()
}

func toError(text string) error {
	switch text {
	case "":
		return nil
	case verify.CodeUnavailable:
		return verify.ErrUnavailable
	}
	return errors.New(text)
}

// A service that stands still does not take revoked tokens once it goes on,
// where its routes or its own word say that it would know.
func TestPauseVerifier(t *testing.T) {
	t.Parallel()
	database := newDatabase(t)
	s := newSystem(t, database, database, database)
	s.start()
	cmd := exec.Command(os.Args[0], s.nodes[0].url, s.key)
	cmd.Env = cleanEnv(helperVariable + "=verifier")
	cmd.SysProcAttr = testenv.OwnGroup(nil, syscall.SIGKILL)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	w := &watcher{s: s, name: "the verifier in a process of its own"}
	answers := bufio.NewScanner(stdout)
	ask := func(of *session) (last verdict) {
		tokens, _, revoked := s.oracle.state(of)
		for _, token := range tokens {
			began := time.Now()
			if _, err := fmt.Fprintln(stdin, token.token); err != nil {
				t.Fatal(err)
			}
			if !answers.Scan() {
				t.Fatal("the verifier ended: ", answers.Err())
			}
			last = verdict{}
			if err := json.Unmarshal(answers.Bytes(), &last); err != nil {
				t.Fatal(err)
			}
			w.judge(of, token, began, revoked, last.Age, last.Known, toError(last.Plain), false)
			w.judge(of, token, began, revoked, feedBound, true, toError(last.Strict), true)
		}
		return last
	}
	sweep := func() (last verdict) {
		for i := range 40 {
			for _, of := range []*session{s.oracle.lastRevoked(i), s.oracle.some(i)} {
				if of != nil {
					last = ask(of)
				}
			}
		}
		return last
	}
	for range 2 {
		s.goOn(300)
		sweep()
		if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		s.goOn(300)
		pause(t.Context(), pauseLength)
		if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		sweep()
		took := s.wait("the verifier is up to date", patience, func() bool {
			last := sweep()
			return last.Known && last.Age < feedBound
		})
		t.Logf("up to date %s after it went on", round(took))
	}
	s.finish()
}
