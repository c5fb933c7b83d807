package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/verify"
)

const (
	rollingClients = 8
	rollingWatches = 20
	rollingDrain   = 2 * time.Second
	// rollingStale is how old what a verifier knows may become: it comes back
	// from the stream that was ended within half a second, and once more if
	// it was sent to the same server.
	rollingStale = 1500 * time.Millisecond
)

// balancer sends requests to the servers that say that they are ready, and
// repeats none.
type balancer struct {
	slots []atomic.Pointer[url.URL] // of the servers
	ready []atomic.Bool
	next  atomic.Uint64
}

func startBalancer(t *testing.T, n int) (*balancer, string) {
	b := &balancer{slots: make([]atomic.Pointer[url.URL], n), ready: make([]atomic.Bool, n)}
	ctx, stop := context.WithCancel(context.Background())
	var looking sync.WaitGroup
	looking.Go(func() { b.look(ctx) })
	transport := &http.Transport{MaxIdleConnsPerHost: 100}
	proxy := &httputil.ReverseProxy{
		Transport: transport, FlushInterval: -1, ErrorLog: log.New(io.Discard, "", 0),
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(b.pick()) },
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, err.Error(), http.StatusBadGateway)
		},
	}
	server := httptest.NewServer(proxy)
	t.Cleanup(func() {
		stop()
		looking.Wait()
		server.CloseClientConnections()
		server.Close()
		transport.CloseIdleConnections()
	})
	return b, server.URL
}

// look asks each server every 100 ms whether it is ready. As load balancers
// do, it takes a server out that is not, or cannot be reached, three times in a
// row.
func (b *balancer) look(ctx context.Context) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Second}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	failed := make([]int, len(b.slots))
	for {
		for i := range b.slots {
			u := b.slots[i].Load()
			if u == nil {
				continue
			}
			response, err := client.Get(u.String() + "/readyz")
			if err == nil {
				response.Body.Close()
			}
			if err == nil && response.StatusCode == http.StatusOK {
				failed[i] = 0
				b.ready[i].Store(true)
			} else if failed[i]++; failed[i] >= 3 {
				b.ready[i].Store(false)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (b *balancer) pick() *url.URL {
	first := b.next.Add(1)
	for n := range uint64(len(b.slots)) {
		i := (first + n) % uint64(len(b.slots))
		if u := b.slots[i].Load(); u != nil && b.ready[i].Load() {
			return u
		}
	}
	return &url.URL{Scheme: "http", Host: "127.0.0.1:1"} // nobody is ready
}

func (b *balancer) set(t *testing.T, i int, p *process) {
	t.Helper()
	u, err := url.Parse(p.url)
	if err != nil {
		t.Fatal(err)
	}
	b.slots[i].Store(u)
	b.wait(t, i, true)
}

func (b *balancer) wait(t *testing.T, i int, ready bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for b.ready[i].Load() != ready {
		if time.Now().After(deadline) {
			t.Fatalf("server %d: ready is not %v", i, ready)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// Two servers on one PostgreSQL are restarted one after the other, twice,
// while clients refresh all the time through a load balancer that repeats
// nothing: no refresh fails, pages that watch their session and verifiers that
// follow the feed come to the other server, and no verifier grows old.
func TestRollingRestart(t *testing.T) {
	database := testPostgres(t)
	sealFile := filepath.Join(t.TempDir(), "rolling.seal")
	if err := os.WriteFile(sealFile, []byte("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const issuer = "https://rolling.example"
	start := func() *process {
		t.Helper()
		p, err := startServer(t.TempDir(), cleanEnv(), "--database", database, "--seal-file", sealFile, "--issuer", issuer, "--drain", rollingDrain.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.kill() })
		return p
	}
	balancer, address := startBalancer(t, 2)
	servers := []*process{start(), start()}
	for i, p := range servers {
		balancer.set(t, i, p)
	}
	key := commandOutput(t, "api-key", "create", "--name", "rolling", "--database", database)
	client := &killClient{t: t, url: address, key: key, http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}, Timeout: 10 * time.Second}}

	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	var refreshes, failures, watches atomic.Int64
	for i := range rollingClients {
		f, err := client.signIn(fmt.Sprint("user-", i))
		if err != nil {
			t.Fatal(err)
		}
		running.Go(func() {
			for ctx.Err() == nil {
				status, body, err := client.do("POST", "/v1/auth/refresh", f.token, "")
				if refreshes.Add(1); err != nil || status != http.StatusOK {
					failures.Add(1)
					t.Errorf("refresh: %d %s %v", status, body, err)
				}
				pauseRolling(ctx, 5*time.Millisecond)
			}
		})
		for range rollingWatches / rollingClients {
			running.Go(func() {
				for ctx.Err() == nil {
					if watchOnce(ctx, address, f.token) == nil {
						watches.Add(1) // it began, and ended
					}
					pauseRolling(ctx, 100*time.Millisecond)
				}
			})
		}
	}
	var worst atomic.Int64
	for range 3 {
		v, err := verify.New(ctx, verify.Config{Issuer: issuer, Authority: address, Audience: "app", APIKey: key, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = v.Close() })
		running.Go(func() {
			for known := false; ctx.Err() == nil; pauseRolling(ctx, 5*time.Millisecond) {
				s := v.Stats()
				known = known || s.FeedAgeKnown
				switch {
				case !known:
				case !s.FeedAgeKnown:
					t.Error("a verifier no longer knows how old it is")
				default:
					for old := worst.Load(); int64(s.FeedAge) > old && !worst.CompareAndSwap(old, int64(s.FeedAge)); old = worst.Load() {
					}
				}
			}
		})
	}

	for round := range 2 {
		for i := range servers {
			began := time.Now()
			if err := servers[i].stop(); err != nil {
				t.Errorf("round %d, server %d: %v\n%s", round, i, err, servers[i].log)
			}
			if took := time.Since(began); took < rollingDrain {
				t.Errorf("it served on for %s only", took)
			}
			if strings.Contains(servers[i].log.String(), "cut off") {
				t.Errorf("requests were cut off:\n%s", servers[i].log)
			}
			balancer.wait(t, i, false)
			servers[i] = start()
			balancer.set(t, i, servers[i])
		}
	}
	stop()
	running.Wait()
	t.Logf("%d refreshes, %d failed; %d watches ended and were begun again; the oldest that a verifier was: %s",
		refreshes.Load(), failures.Load(), watches.Load(), time.Duration(worst.Load()))
	if refreshes.Load() < 100 || watches.Load() < 10 {
		t.Error("too little happened to say anything")
	}
	if oldest := time.Duration(worst.Load()); oldest > rollingStale || oldest == 0 {
		t.Errorf("a verifier was %s old", oldest)
	}
}

func pauseRolling(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// watchOnce follows one watch to its end.
func watchOnce(ctx context.Context, address, token string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/v1/auth/session/watch", nil)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	_, err = io.Copy(io.Discard, response.Body)
	return err
}
