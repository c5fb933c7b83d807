package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/verify"
)

// benchPlan is how much to measure.
type benchPlan struct {
	verifiers, revocations int
	duration               time.Duration // of each of the other measurements
	revokeFor              time.Duration // after it no more are revoked; 0: no bound
}

const (
	benchAudience = "bench"
	// Each verifier holds a stream and what it keeps alive of other calls.
	benchConnectionsEach = 3
	benchReserve         = 200
	// benchPatience bounds the wait for one revocation to reach everybody.
	benchPatience = 10 * time.Second
)

// bencher is an authority that serves on a port of the loopback interface.
type bencher struct {
	plan benchPlan
	node *node
	url  string
	key  string // API key of the verifiers
}

// measure does it all. show is told what begins.
func measure(ctx context.Context, plan benchPlan, show func(string)) (_ *benchReport, err error) {
	began := time.Now()
	show("starting an authority")
	folder, err := os.MkdirTemp("", "counterfoil-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b := &bencher{plan: plan, url: "http://" + listener.Addr().String()}
	quiet := slog.New(slog.DiscardHandler)
	s := &serveSettings{
		issuer: b.url, database: &database{path: filepath.Join(folder, "bench.db")},
		config:    counterfoil.Config{Issuer: b.url, Audiences: []string{benchAudience}, Logger: quiet},
		listening: listening{connections: benchConnectionsEach*plan.verifiers + benchReserve, shutdown: time.Second, log: quiet},
	}
	if b.node, err = openNode(ctx, s); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	defer func() { err = errors.Join(err, b.node.close()) }()
	serving, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- s.run(serving, listener, b.node) }()
	defer func() {
		stop()
		err = errors.Join(err, <-served)
	}()
	secret, _, err := b.node.auth.CreateAPIKey(ctx, counterfoil.NewAPIKey{Name: "bench", Scopes: []string{counterfoil.ScopeVerify}})
	if err != nil {
		return nil, err
	}
	b.key = secret.Reveal()

	r := &benchReport{Machine: thisMachine()}
	for _, step := range []struct {
		what string
		do   func(context.Context, *benchReport, func(string)) error
	}{
		{"verifying one token again and again, in full", b.verifyCold},
		{"verifying a token that was seen before", b.verifyWarm},
		{"refreshing over HTTP", b.refresh},
		{"asking live over HTTP", b.liveCheck},
		{"starting the verifiers", b.revoke},
	} {
		show(step.what)
		if err := step.do(ctx, r, show); err != nil {
			return nil, err
		}
	}
	r.DurationSecs = time.Since(began).Round(time.Millisecond).Seconds()
	return r, nil
}

// verifier returns one that is ready and has a connection pool of its own.
func (b *bencher) verifier(ctx context.Context, cfg verify.Config) (*verify.Verifier, func() error, error) {
	transport := &http.Transport{MaxIdleConnsPerHost: benchReserve} // no proxy: it is this process
	cfg.Issuer, cfg.Audience, cfg.APIKey = b.url, benchAudience, b.key
	cfg.HTTPClient = &http.Client{Transport: transport}
	cfg.Logger = slog.New(slog.DiscardHandler)
	v, err := verify.New(ctx, cfg)
	if err != nil {
		return nil, nil, err
	}
	end := func() error {
		err := v.Close()
		transport.CloseIdleConnections()
		return err
	}
	ready, cancel := context.WithTimeout(ctx, benchPatience)
	defer cancel()
	if err := v.Wait(ready); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("a verifier does not become ready: %w", err), end())
	}
	return v, end, nil
}

func (b *bencher) sessions(ctx context.Context, n int) ([]*counterfoil.Grant, error) {
	grants := make([]*counterfoil.Grant, n)
	for i := range grants {
		var err error
		grants[i], err = b.node.auth.StartSession(ctx, counterfoil.SignIn{Subject: fmt.Sprintf("user-%d", i), Methods: []string{"pwd"}})
		if err != nil {
			return nil, err
		}
	}
	return grants, nil
}

func (b *bencher) verifyCold(ctx context.Context, r *benchReport, _ func(string)) (err error) {
	r.VerifyCold, err = b.verify(ctx, verify.Config{CacheTokens: -1}, 8)
	return err
}

func (b *bencher) verifyWarm(ctx context.Context, r *benchReport, _ func(string)) (err error) {
	r.VerifyWarm, err = b.verify(ctx, verify.Config{}, 1024)
	return err
}

// verify checks one token over and over. The clock is read after each batch.
func (b *bencher) verify(ctx context.Context, cfg verify.Config, batch int) (c benchCost, err error) {
	v, end, err := b.verifier(ctx, cfg)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, end()) }()
	grants, err := b.sessions(ctx, 1)
	if err != nil {
		return c, err
	}
	check, token := v.Checker(), grants[0].AccessToken
	for range batch { // the first ones pay for what stays
		if _, err := check(ctx, token); err != nil {
			return c, err
		}
	}
	began, took := time.Now(), time.Duration(0)
	for took < b.plan.duration && ctx.Err() == nil {
		for range batch {
			if _, err := check(ctx, token); err != nil {
				return c, err
			}
		}
		c.N += batch
		took = time.Since(began)
	}
	c.Mean = float64(took) / float64(c.N)
	return c, ctx.Err()
}

func (b *bencher) refresh(ctx context.Context, r *benchReport, _ func(string)) error {
	n := benchConnections()
	grants, err := b.sessions(ctx, n)
	if err != nil {
		return err
	}
	transport := &http.Transport{MaxIdleConnsPerHost: n}
	defer transport.CloseIdleConnections()
	r.Refresh, err = b.load(ctx, n, func(i int) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, b.url+"/v1/auth/refresh", bytes.NewReader(nil))
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+grants[i].SessionToken.Reveal())
		res, err := transport.RoundTrip(req)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, res.Body)
		if err = errors.Join(err, res.Body.Close()); err == nil && res.StatusCode != http.StatusOK {
			err = fmt.Errorf("refresh: %s", res.Status)
		}
		return err
	})
	return err
}

func (b *bencher) liveCheck(ctx context.Context, r *benchReport, _ func(string)) (err error) {
	n := benchConnections()
	v, end, err := b.verifier(ctx, verify.Config{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	// A token each: questions about one token would be shared.
	grants, err := b.sessions(ctx, n)
	if err != nil {
		return err
	}
	check := v.Checker(verify.Live())
	r.LiveCheck, err = b.load(ctx, n, func(i int) error {
		_, err := check(ctx, grants[i].AccessToken)
		return err
	})
	return err
}

func benchConnections() int { return min(4*runtime.GOMAXPROCS(0), 32) }

// load calls do from n goroutines for the plan's duration.
func (b *bencher) load(ctx context.Context, n int, do func(i int) error) (r benchRate, err error) {
	took, errs := make([][]time.Duration, n), make([]error, n)
	began := time.Now()
	end := began.Add(b.plan.duration)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			for now := time.Now(); len(took[i]) == 0 || now.Before(end); {
				if errs[i] = do(i); errs[i] != nil {
					return
				}
				after := time.Now()
				took[i] = append(took[i], after.Sub(now))
				now = after
			}
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return r, err
	}
	r.benchTimes = spread(slices.Concat(took...))
	r.Connections = n
	r.PerSecond = float64(r.N) / time.Since(began).Seconds()
	return r, ctx.Err()
}

// revoke ends sessions one after the other, and measures each time how long
// it takes, from the call, until each verifier refuses the token.
func (b *bencher) revoke(ctx context.Context, r *benchReport, show func(string)) (err error) {
	verifiers := make([]*verify.Verifier, b.plan.verifiers)
	for i := range verifiers {
		v, end, err2 := b.verifier(ctx, verify.Config{CacheTokens: 16})
		if err2 != nil {
			return err2
		}
		defer func() { err = errors.Join(err, end()) }()
		verifiers[i] = v
	}
	var took []time.Duration
	began, done := time.Now(), 0
	for i := range b.plan.revocations {
		if b.plan.revokeFor > 0 && i > 0 && time.Since(began) > b.plan.revokeFor {
			break
		}
		show(fmt.Sprintf("revoking: %d of %d, at %d verifiers", i+1, b.plan.revocations, b.plan.verifiers))
		one, err := b.revokeOne(ctx, verifiers)
		if err != nil {
			return err
		}
		took = append(took, one...)
		done++
	}
	show("ending")
	r.Revoke = benchSpread{Verifiers: b.plan.verifiers, Revocations: done, benchTimes: spread(took)}
	return nil
}

func (b *bencher) revokeOne(ctx context.Context, verifiers []*verify.Verifier) ([]time.Duration, error) {
	grants, err := b.sessions(ctx, 1)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, benchPatience, errors.New("a revocation did not reach every verifier in time"))
	defer cancel()
	token := grants[0].AccessToken
	refused, errs := make([]time.Time, len(verifiers)), make([]error, len(verifiers))
	var all sync.WaitGroup
	for i, v := range verifiers {
		claims, err := v.Check(ctx, token)
		if err != nil {
			cancel()
			all.Wait()
			return nil, err
		}
		watched, stop := verify.Watch(verify.NewContext(ctx, claims))
		all.Go(func() {
			defer stop()
			<-watched.Done()
			_, errs[i] = v.Check(context.WithoutCancel(ctx), token)
			refused[i] = time.Now()
		})
	}
	began := time.Now()
	err = b.node.auth.RevokeSession(ctx, grants[0].Session.ID, counterfoil.SignedOut)
	if err != nil {
		cancel()
	}
	all.Wait()
	if err != nil {
		return nil, err
	}
	took := make([]time.Duration, len(verifiers))
	for i, at := range refused {
		if !errors.Is(errs[i], verify.ErrTokenRevoked) {
			return nil, fmt.Errorf("a verifier took a revoked token: %w", errors.Join(context.Cause(ctx), errs[i]))
		}
		took[i] = at.Sub(began)
	}
	return took, nil
}

// spread sorts times and picks some (nearest rank).
func spread(times []time.Duration) benchTimes {
	slices.Sort(times)
	at := func(percent int) time.Duration { return times[(len(times)*percent+99)/100-1] }
	return benchTimes{N: len(times), P50: at(50), P99: at(99), Worst: times[len(times)-1]}
}
