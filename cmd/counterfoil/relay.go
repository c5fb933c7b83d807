package main

import (
	"context"
	"errors"
	"fmt"
	"net"
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
	listenFlags
	issuer, apiKeyFile, cache textValue
	authorities               listValue
}

func newRelayFlags(f *flags) *relayFlags {
	r := &relayFlags{listenFlags: newListenFlags("127.0.0.1:8701", 20000)}
	f.add(&r.authorities, "authority", "URL", "what to follow: an authority's node or another relay; several by comma, the first to begin with")
	f.add(&r.issuer, "issuer", "URL", "the iss of access tokens; the first --authority when left out")
	f.add(&r.apiKeyFile, "api-key-file", "FILE", "holds the relay's API key (scope verify); COUNTERFOIL_API_KEY when left out")
	f.add(&r.listen, "listen", "ADDRESS", "address and port to listen on")
	r.tlsFlags(f)
	f.add(&r.cache, "cache", "FILE", "lets the relay start while the authority is away; FILE.readers is made beside it")
	r.metricsFlag(f)
	r.loadFlags(f)
	r.shutdownFlag(f)
	f.configFlag()
	return r
}

// relaySettings are flags that hold together.
type relaySettings struct {
	listening
	config relay.Config
}

func (r *relayFlags) settings(a *app) (*relaySettings, error) {
	if len(r.authorities) == 0 {
		return nil, usagef("--authority is missing: the address of the authority to follow")
	}
	common, err := r.listening(a, "8701")
	if err != nil {
		return nil, err
	}
	s := &relaySettings{listening: common}
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
	if err := s.metrics.listen(ctx, s.log); err != nil {
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
	if s.exposed(listener) {
		s.log.Warn("plain http on an address that others can reach: API keys and tokens can be read on the way; give --tls-cert and --tls-key, or see to it that the network is trusted",
			"listen", listener.Addr().String())
	}
	failed := make(chan error, 2)
	s.metrics.start(r.Metrics(), failed)
	s.accept(server, listener, failed)
	s.log.Info("counterfoil relay is ready", "listen", s.address(listener), "issuer", s.config.Issuer,
		"authority", strings.Join(s.config.Authorities, ","), "serves", r.Ready(), "metrics", s.metrics.where(), "version", readBuild().Version)
	select {
	case err := <-failed:
		return fmt.Errorf("relay: %w", err)
	case <-ctx.Done():
	}
	s.log.Info("stopping: readers go to another relay, or come back")
	server.RegisterOnShutdown(func() { _ = r.Close() }) // streams over HTTP/2 would be waited for; it is told again later
	return s.finish(ctx, server)
}
