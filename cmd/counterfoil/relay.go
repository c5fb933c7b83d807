package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil/httpapi"
	"github.com/counterfoil/counterfoil/relay"
)

func relayCommand() *command {
	return &command{
		name:  "relay",
		short: "Serve an authority's feed on, near the verifiers",
		long: `Follows an authority, or another relay, and is for verifiers what the authority
is: they give its address as Authority, and nothing else changes. Keys and the feed
of revocations come from the relay; live checks go through it to the authority. With
several addresses it goes over to the next when one fails.

The API key (scope verify) is in COUNTERFOIL_API_KEY or in the file of
--api-key-file. Readers have keys of their own, about which the authority is asked.`,
		examples: []string{
			"COUNTERFOIL_API_KEY=… counterfoil relay --authority https://auth.example",
			"counterfoil relay --authority http://auth-1:8700,http://auth-2:8700 --issuer https://app.example --api-key-file relay.key --cache relay.cache",
		},
		setup: func(a *app, f *flags) func(context.Context, []string) error {
			r := newRelayFlags(f)
			return func(ctx context.Context, args []string) error {
				if err := noArgs(args); err != nil {
					return err
				}
				s, err := r.settings(a)
				if err != nil {
					return err
				}
				return s.run(ctx)
			}
		},
	}
}

// relayFlags are the flags as typed.
type relayFlags struct {
	listen, issuer, apiKeyFile, cache textValue
	metricsListen                     textValue
	authorities                       listValue
	tlsCert, tlsKey                   textValue
	logFormat, logLevel               string
	connections                       intValue
	shutdownTimeout                   durationValue
}

func newRelayFlags(f *flags) *relayFlags {
	r := &relayFlags{listen: "127.0.0.1:8701", logFormat: "text", logLevel: "info", connections: 20000, shutdownTimeout: durationValue(10 * time.Second)}
	f.add(&r.authorities, "authority", "URL", "what to follow: an authority's node or another relay; several by comma, the first to begin with")
	f.add(&r.issuer, "issuer", "URL", "the iss of access tokens; the first --authority when left out")
	f.add(&r.apiKeyFile, "api-key-file", "FILE", "holds the relay's API key (scope verify); COUNTERFOIL_API_KEY when left out")
	f.add(&r.listen, "listen", "ADDRESS", "address and port to listen on")
	f.add(&r.tlsCert, "tls-cert", "FILE", "certificate chain, PEM; with --tls-key")
	f.add(&r.tlsKey, "tls-key", "FILE", "private key, PEM")
	f.add(&r.cache, "cache", "FILE", "lets the relay start while the authority is away; FILE.readers is made beside it")
	f.add(&r.metricsListen, "metrics-listen", "ADDRESS", "address and port for /metrics (Prometheus), which asks for no credential; off when left out")
	f.add(&r.connections, "max-connections", "N", "at once; more wait")
	f.add(&choiceValue{&r.logFormat, []string{"text", "json"}}, "log-format", "FORMAT", "text or json, on stderr")
	f.add(&choiceValue{&r.logLevel, []string{"debug", "info", "warn", "error"}}, "log-level", "LEVEL", "debug, info, warn or error")
	f.add(&r.shutdownTimeout, "shutdown-timeout", "DURATION", "how long requests under way may take to finish")
	f.configFlag()
	return r
}

// relaySettings are flags that hold together.
type relaySettings struct {
	listen      string
	config      relay.Config
	metrics     metricsServer
	certificate *tls.Certificate
	connections int
	shutdown    time.Duration
	log         *slog.Logger
}

func (r *relayFlags) settings(a *app) (*relaySettings, error) {
	s := &relaySettings{listen: string(r.listen), metrics: metricsServer{address: string(r.metricsListen)}, connections: int(r.connections), shutdown: time.Duration(r.shutdownTimeout)}
	if len(r.authorities) == 0 {
		return nil, usagef("--authority is missing: the address of the authority to follow")
	}
	if _, _, err := net.SplitHostPort(s.listen); err != nil {
		return nil, usagef("--listen %q: want ADDRESS:PORT, such as 127.0.0.1:8701 or :8701", s.listen)
	}
	if _, _, err := net.SplitHostPort(s.metrics.address); s.metrics.address != "" && err != nil {
		return nil, usagef("--metrics-listen %q: want ADDRESS:PORT, such as 127.0.0.1:9701", s.metrics.address)
	}
	if s.connections < 1 {
		return nil, usagef("--max-connections %d: want at least 1", s.connections)
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(r.logLevel)); err != nil {
		return nil, usagef("--log-level %q: %v", r.logLevel, err)
	}
	s.log = newLogger(a.stderr, r.logFormat, level)
	for _, problem := range strays(a.environ) {
		s.log.Warn(problem)
	}
	var secure serveSettings
	if err := (&serveFlags{tlsCert: r.tlsCert, tlsKey: r.tlsKey}).checkTLS(&secure); err != nil {
		return nil, err
	}
	s.certificate = secure.certificate
	key, err := r.apiKey(a)
	if err != nil {
		return nil, err
	}
	s.config = relay.Config{Issuer: string(r.issuer), Authorities: r.authorities, APIKey: key, Cache: string(r.cache), Logger: s.log}
	if s.config.Issuer == "" {
		s.config.Issuer = strings.TrimRight(r.authorities[0], "/")
	}
	return s, nil
}

func (r *relayFlags) apiKey(a *app) (string, error) {
	if r.apiKeyFile == "" {
		if key, _ := a.lookupEnv(apiKeyVariable); key != "" {
			return key, nil
		}
		return "", usagef("the API key is missing: give it in %s or --api-key-file (counterfoil api-key create --name relay --scope verify)", apiKeyVariable)
	}
	data, err := os.ReadFile(string(r.apiKeyFile))
	if err != nil {
		return "", fmt.Errorf("--api-key-file: %w", err)
	}
	key := strings.TrimSpace(string(data))
	if key == "" {
		return "", fmt.Errorf("--api-key-file %s: it is empty", r.apiKeyFile)
	}
	return key, nil
}

// run serves until ctx ends. The port is taken first, as serve does.
func (s *relaySettings) run(ctx context.Context) (err error) {
	listener, err := listen(ctx, s.listen)
	if err != nil {
		return err
	}
	defer func() {
		// The server closes it too, which then is no failure.
		if closing := listener.Close(); closing != nil && !errors.Is(closing, net.ErrClosed) {
			err = errors.Join(err, closing)
		}
	}()
	if err := s.metrics.listen(ctx, &serveSettings{log: s.log}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.metrics.close()) }()
	// It serves as soon as it has something to serve, and says so until then.
	starting, cancel := context.WithTimeout(ctx, 2*time.Second)
	r, err := relay.New(starting, s.config)
	cancel()
	if problem, ok := errors.AsType[*relay.ConfigError](err); ok {
		return usagef("%s", map[string]string{
			"Authorities": "--authority", "Issuer": "--issuer", "Cache": "--cache", "APIKey": "the API key",
		}[problem.Field]+": "+problem.Problem)
	}
	if err != nil {
		return err
	}
	return errors.Join(s.serve(ctx, listener, r), r.Close())
}

func (s *relaySettings) serve(ctx context.Context, listener net.Listener, r *relay.Relay) error {
	server := httpapi.Server(r)
	server.ErrorLog = slog.NewLogLogger(s.log.Handler(), slog.LevelWarn)
	scheme, accept := "http", server.Serve
	if s.certificate != nil {
		scheme = "https"
		server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{*s.certificate}, MinVersion: tls.VersionTLS12}
		accept = func(l net.Listener) error { return server.ServeTLS(l, "", "") }
	} else if !isLoopback(listener.Addr().String()) {
		s.log.Warn("plain http on an address that others can reach: API keys and tokens can be read on the way; give --tls-cert and --tls-key, or see to it that the network is trusted",
			"listen", listener.Addr().String())
	}
	failed := make(chan error, 2)
	s.metrics.start(r.Metrics(), failed)
	go func() { failed <- accept(newLimit(listener, s.connections)) }()
	s.log.Info("counterfoil relay is ready", "listen", scheme+"://"+listener.Addr().String(), "issuer", s.config.Issuer,
		"authority", strings.Join(s.config.Authorities, ","), "serves", r.Ready(), "metrics", s.metrics.where(), "version", readBuild().Version)
	select {
	case err := <-failed:
		return fmt.Errorf("relay: %w", err)
	case <-ctx.Done():
	}
	s.log.Info("stopping: readers go to another relay, or come back")
	finish, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.shutdown)
	defer cancel()
	server.RegisterOnShutdown(func() { _ = r.Close() }) // streams over HTTP/2 would be waited for; it is told again later
	if err := server.Shutdown(finish); err != nil {
		s.log.Warn("some requests were not finished in time and are cut off", "error", err)
		if err := server.Close(); err != nil && !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("stop: %w", err)
		}
	}
	s.log.Info("stopped")
	return nil
}
