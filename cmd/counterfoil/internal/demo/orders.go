package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/counterfoil/counterfoil/httpapi"
	"github.com/counterfoil/counterfoil/internal/problem"
	"github.com/counterfoil/counterfoil/verify"
)

// Audience is the name of the protected service.
const Audience = "orders"

// RoleAdmin is the role that the page's operator gives and takes.
const RoleAdmin = "admin"

// OrdersConfig is what the protected service is told.
type OrdersConfig struct {
	Issuer    string // what its tokens must name
	Authority string // where the authority is reached
	APIKey    string // for the feed and for live checks
	// MaxFeedAge is how old the feed may be for GET /balance; default 2 s.
	MaxFeedAge time.Duration
}

// OrdersReady is what it reports when it serves.
type OrdersReady struct {
	Address string // host and port
}

// ServeOrders runs the protected service until ctx ends. It shares nothing
// with the authority but the network.
func ServeOrders(ctx context.Context, c OrdersConfig, log *slog.Logger, ready func(any) error) error {
	feed := newLink(&http.Transport{}) // no proxy: the authority is on this machine
	v, err := verify.New(ctx, verify.Config{
		Issuer: c.Issuer, Audience: Audience, Authority: c.Authority, APIKey: c.APIKey,
		HTTPClient: &http.Client{Transport: counting{feed}}, Logger: log,
	})
	if err != nil {
		return err
	}
	defer func() { _ = v.Close() }()
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if c.MaxFeedAge == 0 {
		c.MaxFeedAge = 2 * time.Second
	}
	server := httpapi.Server(ordersHandler(v, feed, c.MaxFeedAge))
	server.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelWarn)
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := ready(OrdersReady{listener.Addr().String()}); err != nil {
		return errors.Join(err, listener.Close())
	}
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve orders: %w", err)
	}
	return nil
}

// ordersHandler is the protected service: four routes, four rules, and what
// the page shows of the feed. Answers tell in Server-Timing how long the
// decision took, and in [CallsHeader] how often the authority was asked for it.
func ordersHandler(v *verify.Verifier, feed *link, maxFeedAge time.Duration) http.Handler {
	local := v.Require()
	live := v.Require(verify.Live())
	fresh := v.Require(verify.MaxFeedAge(maxFeedAge))
	admin := v.Require(verify.Role(RoleAdmin))

	mux := http.NewServeMux()
	mux.Handle("GET /orders", measured(local, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]any{"orders": []string{"tea, 250 g", "paper, A5", "a bicycle bell"}})
	}))
	mux.Handle("GET /balance", measured(fresh, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]any{"balance": 42})
	}))
	mux.Handle("POST /payments", measured(live, func(w http.ResponseWriter, r *http.Request) {
		claims, _ := verify.FromContext(r.Context())
		answer(w, http.StatusCreated, map[string]any{"paid": true, "by": claims.Subject})
	}))
	mux.Handle("GET /report", measured(admin, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]any{"orders": 3, "customers": 1})
	}))
	mux.Handle("GET /watch", local(http.HandlerFunc(watch)))
	feedRoutes(mux, v, feed)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		problem.Write(w, problem.Problem{Status: http.StatusNotFound, Code: "not_found", Detail: "There is no such address."})
	})
	return http.NewCrossOriginProtection().Handler(mux)
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// A write fails when the client has gone; there is nobody left to tell.
	_ = json.NewEncoder(w).Encode(body)
}

// CallsHeader tells how many calls to the authority a decision took.
const CallsHeader = "Demo-Authority-Calls"

// measured puts a route behind its rules and tells what the decision cost.
func measured(rules func(http.Handler) http.Handler, serve http.HandlerFunc) http.Handler {
	guarded := rules(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m, ok := w.(*meter); ok {
			m.decide()
		}
		serve(w, r)
	}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m := &meter{ResponseWriter: w, calls: new(atomic.Int64), start: time.Now()}
		guarded.ServeHTTP(m, r.WithContext(context.WithValue(r.Context(), callsKey{}, m.calls)))
	})
}

// meter notes when the decision fell: when the route was entered, or when the
// refusal was written.
type meter struct {
	http.ResponseWriter
	calls   *atomic.Int64
	start   time.Time
	decided bool
}

func (m *meter) decide() {
	if m.decided {
		return
	}
	m.decided = true
	took := time.Since(m.start)
	m.Header().Set("Server-Timing", fmt.Sprintf("verify;dur=%.3f", float64(took)/float64(time.Millisecond)))
	m.Header().Set(CallsHeader, strconv.FormatInt(m.calls.Load(), 10))
}

func (m *meter) WriteHeader(status int) {
	m.decide()
	m.ResponseWriter.WriteHeader(status)
}

func (m *meter) Unwrap() http.ResponseWriter { return m.ResponseWriter }

// counting counts the calls to the authority that one request brings about.
type counting struct{ next http.RoundTripper }

type callsKey struct{}

func (c counting) RoundTrip(r *http.Request) (*http.Response, error) {
	if calls, ok := r.Context().Value(callsKey{}).(*atomic.Int64); ok {
		calls.Add(1)
	}
	return c.next.RoundTrip(r)
}
