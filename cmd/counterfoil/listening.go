package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// listenFlags are the flags, as typed, of every command that serves.
type listenFlags struct {
	listen, metricsListen textValue
	tlsCert, tlsKey       textValue
	logFormat, logLevel   string
	connections           intValue
	shutdownTimeout       durationValue
}

func newListenFlags(listen textValue, connections intValue) listenFlags {
	return listenFlags{listen: listen, connections: connections, logFormat: "text", logLevel: "info", shutdownTimeout: durationValue(10 * time.Second)}
}

func (l *listenFlags) tlsFlags(f *flags) {
	f.add(&l.tlsCert, "tls-cert", "FILE", "certificate chain, PEM; with --tls-key")
	f.add(&l.tlsKey, "tls-key", "FILE", "private key, PEM")
}

func (l *listenFlags) metricsFlag(f *flags) {
	f.add(&l.metricsListen, "metrics-listen", "ADDRESS", "address and port for /metrics (Prometheus), which asks for no credential; off when left out")
}

func (l *listenFlags) loadFlags(f *flags) {
	f.add(&l.connections, "max-connections", "N", "at once; more wait")
	f.add(&choiceValue{&l.logFormat, []string{"text", "json"}}, "log-format", "FORMAT", "text or json, on stderr")
	f.add(&choiceValue{&l.logLevel, []string{"debug", "info", "warn", "error"}}, "log-level", "LEVEL", "debug, info, warn or error")
}

func (l *listenFlags) shutdownFlag(f *flags) {
	f.add(&l.shutdownTimeout, "shutdown-timeout", "DURATION", "how long requests under way may take to finish")
}

// listening is how a command serves.
type listening struct {
	listen      string
	metrics     metricsServer
	certificate *tls.Certificate // nil: plain http
	connections int
	shutdown    time.Duration
	log         *slog.Logger
}

// listening checks the flags; port is an example for messages. What the
// environment holds that is no flag is told of in the log.
func (l *listenFlags) listening(a *app, port string) (s listening, err error) {
	s = listening{listen: string(l.listen), metrics: metricsServer{address: string(l.metricsListen)}, connections: int(l.connections), shutdown: time.Duration(l.shutdownTimeout)}
	if _, _, err := net.SplitHostPort(s.listen); err != nil {
		return s, usagef("--listen %q: want ADDRESS:PORT, such as 127.0.0.1:%s or :%[2]s", s.listen, port)
	}
	if _, _, err := net.SplitHostPort(s.metrics.address); s.metrics.address != "" && err != nil {
		return s, usagef("--metrics-listen %q: want ADDRESS:PORT, such as 127.0.0.1:9700", s.metrics.address)
	}
	if s.connections < 1 {
		return s, usagef("--max-connections %d: want at least 1", s.connections)
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.logLevel)); err != nil {
		return s, usagef("--log-level %q: %v", l.logLevel, err)
	}
	s.log = newLogger(a.stderr, l.logFormat, level)
	for _, problem := range strays(a.environ) {
		s.log.Warn(problem)
	}
	s.certificate, err = l.pair()
	return s, err
}

func (l *listenFlags) pair() (*tls.Certificate, error) {
	switch {
	case l.tlsCert == "" && l.tlsKey == "":
		return nil, nil
	case l.tlsCert == "":
		return nil, usagef("--tls-key wants --tls-cert")
	case l.tlsKey == "":
		return nil, usagef("--tls-cert wants --tls-key")
	}
	pair, err := tls.LoadX509KeyPair(string(l.tlsCert), string(l.tlsKey))
	if err != nil {
		return nil, fmt.Errorf("--tls-cert %s, --tls-key %s: %w", l.tlsCert, l.tlsKey, err)
	}
	return &pair, nil
}

// accept begins to serve in the background, and reports a failure to failed.
func (s *listening) accept(server *http.Server, listener net.Listener, failed chan<- error) {
	server.ErrorLog = slog.NewLogLogger(s.log.Handler(), slog.LevelWarn)
	bounded, serve := newLimit(listener, s.connections), server.Serve
	if s.certificate != nil {
		server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{*s.certificate}, MinVersion: tls.VersionTLS12}
		serve = func(l net.Listener) error { return server.ServeTLS(l, "", "") }
	}
	go func() { failed <- serve(bounded) }()
}

// address is where it is reached.
func (s *listening) address(listener net.Listener) string {
	if s.certificate != nil {
		return "https://" + listener.Addr().String()
	}
	return "http://" + listener.Addr().String()
}

// exposed says that what is sent can be read on the way by others.
func (s *listening) exposed(listener net.Listener) bool {
	return s.certificate == nil && !isLoopback(listener.Addr().String())
}

// finish ends the server once requests under way are done, or their time is over.
func (s *listening) finish(ctx context.Context, server *http.Server) error {
	finish, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.shutdown)
	defer cancel()
	if err := server.Shutdown(finish); err != nil {
		s.log.Warn("some requests were not finished in time and are cut off", "error", err)
		if err := server.Close(); err != nil && !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("stop: %w", err)
		}
	}
	s.log.Info("stopped")
	return nil
}
