package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"

	"github.com/counterfoil/counterfoil/httpapi"
)

// metricsServer serves /metrics by itself on an address of its own: the public
// one shows nothing of the kind (SEC-107).
type metricsServer struct {
	address  string // empty: nobody asked for metrics
	listener net.Listener
	server   *http.Server
}

func (m *metricsServer) listen(ctx context.Context, log *slog.Logger) (err error) {
	if m.address == "" {
		return nil
	}
	if m.listener, err = listenFor(ctx, "--metrics-listen", m.address); err != nil {
		return err
	}
	if !isLoopback(m.listener.Addr().String()) {
		log.Warn("whoever reaches the metrics reads them: let the network see to it that only the monitoring does", "metrics", m.where())
	}
	return nil
}

// start answers requests until close, and reports a failure to failed.
func (m *metricsServer) start(metrics http.Handler, failed chan<- error) {
	if m.listener == nil {
		return
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", metrics)
	m.server = httpapi.Server(mux)
	go func() {
		if err := m.server.Serve(m.listener); !errors.Is(err, http.ErrServerClosed) {
			failed <- err
		}
	}()
}

// close ends it at once: a scrape that is cut off comes again.
func (m *metricsServer) close() error {
	switch {
	case m.listener == nil:
		return nil
	case m.server == nil:
		return m.listener.Close()
	}
	return m.server.Close()
}

func (m *metricsServer) where() string {
	if m.listener == nil {
		return "off"
	}
	return "http://" + m.listener.Addr().String() + "/metrics"
}
