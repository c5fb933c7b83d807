// Command orders is a service that receives access tokens and verifies them
// by itself. It imports package verify alone: no store, no driver, nothing
// beyond the standard library. See README.md beside it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/counterfoil/counterfoil/verify"
)

func main() {
	listen := flag.String("listen", "localhost:8081", "address to listen on")
	issuer := flag.String("issuer", os.Getenv("COUNTERFOIL_ISSUER"), "the authority's public URL: the iss of the tokens [COUNTERFOIL_ISSUER]")
	authority := flag.String("authority", os.Getenv("COUNTERFOIL_AUTHORITY"), "its private address, where that is another [COUNTERFOIL_AUTHORITY]")
	cache := flag.String("cache", os.Getenv("COUNTERFOIL_CACHE"), "file that keeps the keys for a start without the authority [COUNTERFOIL_CACHE]")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, *listen, verify.Config{
		Issuer:    *issuer,
		Audience:  "orders", // tokens for other services are refused
		Authority: *authority,
		APIKey:    os.Getenv("COUNTERFOIL_API_KEY"), // scope verify: for the feed of revocations and live checks. Secrets do not go on command lines
		Cache:     *cache,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "orders:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, listen string, config verify.Config) error {
	// Returns when the keys are there. An authority that is down is no error:
	// with the cache file the routes serve at once, without it they answer
	// 503 until it is up.
	v, err := verify.New(ctx, config)
	if err != nil {
		return err
	}
	defer func() { _ = v.Close() }() // it ends the fetching of keys, which cannot fail
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", listen)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: newShop().routes(v), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second, IdleTimeout: 2 * time.Minute}
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		stopped <- server.Shutdown(grace)
	}()
	fmt.Printf("orders on http://%s\n", listener.Addr())
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-stopped
}

func (s *shop) routes(v *verify.Verifier) http.Handler {
	// Nobody is asked: a signature check, some microseconds, and the next time
	// a lookup. A session that was ended is heard of on the feed, at once; cut
	// off from it, when its token expires, within a minute.
	signedIn := v.Require()
	// For what cannot be undone the authority is asked now, and the user must
	// have proved who they are a short while ago. If nobody answers, nothing
	// is deleted: 503.
	careful := v.Require(verify.Live(), verify.MaxAuthAge(10*time.Minute))

	mux := http.NewServeMux()
	mux.Handle("GET /orders", signedIn(http.HandlerFunc(s.list)))
	mux.Handle("DELETE /account", careful(http.HandlerFunc(s.remove)))
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !v.Ready() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	return mux
}

// shop keeps orders by the subject of the tokens.
type shop struct {
	mu     sync.Mutex
	orders map[string][]order
}

type order struct {
	ID   int    `json:"id"`
	Item string `json:"item"`
}

func newShop() *shop { return &shop{orders: map[string][]order{}} }

func (s *shop) list(w http.ResponseWriter, r *http.Request) {
	claims, _ := verify.FromContext(r.Context()) // there, since Require let the request through
	s.mu.Lock()
	defer s.mu.Unlock()
	mine, known := s.orders[claims.Subject]
	if !known { // something to show
		mine = []order{{1, "a lamp"}, {2, "a rope"}}
		s.orders[claims.Subject] = mine
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "private, no-store")
	// An error here is the client's connection: there is nobody to tell.
	_ = json.NewEncoder(w).Encode(map[string]any{"subject": claims.Subject, "orders": mine})
}

func (s *shop) remove(w http.ResponseWriter, r *http.Request) {
	claims, _ := verify.FromContext(r.Context())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.orders[claims.Subject] = []order{}
	w.WriteHeader(http.StatusNoContent)
}
