package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/counterfoil/counterfoil/internal/feed"
	"github.com/counterfoil/counterfoil/internal/opaque"
	"github.com/counterfoil/counterfoil/verify"
)

const (
	// beatEvery is the time between beats while what is followed does not beat.
	// A beat that comes is passed on at once, and puts the next one off.
	beatEvery = 150 * time.Millisecond
	// retain and retainBytes bound what is kept for readers that come back.
	retain      = 10 * time.Minute
	retainBytes = 32 << 20
	// maxKeyAge is how long keys are served that could not be fetched anew, at
	// all relays together.
	maxKeyAge = 24 * time.Hour
)

// Config is what a [Relay] needs to know. Issuer and APIKey are required.
type Config struct {
	// Issuer is the iss of the tokens that readers verify, character by
	// character, as in [verify.Config].
	Issuer string
	// Authorities are the addresses to follow: nodes of one authority, or
	// relays, in any mixture. One is followed at a time, the first to begin
	// with; another when that fails or falls behind. Empty: the issuer.
	Authorities []string
	// APIKey authenticates the relay itself (scope "verify").
	APIKey string
	// Cache names a file with which the relay can start while all Authorities
	// are away; see [verify.Config]. Beside it, FILE.readers keeps hashes of
	// the API keys of readers that were good. Empty: neither.
	Cache string
	// Transport makes the connections. Default: one of its own.
	Transport *http.Transport
	// Logger hears of trouble. No API key and no token is ever logged.
	// Default: slog.Default().
	Logger *slog.Logger
}

// String shows the configuration without the API key.
func (c Config) String() string {
	if c.APIKey != "" {
		c.APIKey = "[redacted]"
	}
	type plain Config // without this method
	return fmt.Sprintf("%+v", plain(c))
}

// GoString is String.
func (c Config) GoString() string { return c.String() }

// LogValue is String, for slog.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// ConfigError is a mistake in a [Config].
type ConfigError struct{ Field, Problem string }

func (e *ConfigError) Error() string { return "relay: Config." + e.Field + ": " + e.Problem }

func configError(err error) error {
	var e *verify.ConfigError
	if !errors.As(err, &e) {
		return err
	}
	if e.Field == "Authority" {
		return &ConfigError{"Authorities", e.Problem}
	}
	return &ConfigError{e.Field, e.Problem}
}

// Relay serves on what it follows: the feed with its clock, the keys and the
// discovery document, and, asked through, live checks. It is an http.Handler
// for the root of a listener of its own, or behind http.StripPrefix. Its
// methods are safe for concurrent use.
type Relay struct {
	issuer   string
	log      *slog.Logger
	verifier *verify.Verifier
	up       *upstream
	hub      *hub
	server   *feed.Server
	readers  *readers
	mux      *http.ServeMux
	counters counters
	slots    chan struct{} // live checks under way

	closing sync.Once
	closed  error // what closing led to
}

// New returns a relay that follows. It returns when it has keys and all
// revocations in force, from the cache file or the network, or when ctx ends,
// or after ten seconds, whichever is first; without them it goes on trying,
// and answers 503. The error is a *[ConfigError]. Close the relay when
// it is no longer needed.
func New(ctx context.Context, cfg Config) (*Relay, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if len(cfg.Authorities) == 0 {
		cfg.Authorities = []string{cfg.Issuer}
	}
	if cfg.APIKey == "" {
		return nil, &ConfigError{"APIKey", "is required: a relay follows the feed (scope verify)"}
	}
	up, err := newUpstream(cfg.Authorities, cfg.Transport)
	if err != nil {
		return nil, err
	}
	r := &Relay{issuer: cfg.Issuer, log: cfg.Logger, up: up, slots: make(chan struct{}, maxForwards)}
	r.counters.init()
	r.hub = newHub(up, cfg.Logger)
	r.server = feed.NewServer(feed.ServerConfig{
		Node: opaque.RandomText(), BeatEvery: beatEvery, Retain: retain, RetainBytes: retainBytes,
		KeyVersion: r.hub.keyVersion, Level: r.hub.level.Load, Snapshot: r.hub.snapshot, Wake: func() {},
	})
	r.hub.server = r.server
	file := ""
	if cfg.Cache != "" {
		file = cfg.Cache + ".readers"
	}
	r.readers = newReaders(cfg.Issuer, up.vouch, file, cfg.Logger)
	r.verifier, err = verify.New(feed.WithTap(ctx, r.hub), verify.Config{
		Issuer: cfg.Issuer, AcceptAnyAudience: true, Authority: up.bases[0].String(), APIKey: cfg.APIKey, Cache: cfg.Cache,
		HTTPClient: &http.Client{Transport: up}, CacheTokens: -1, MaxKeyAge: maxKeyAge, Logger: cfg.Logger,
	})
	if err != nil {
		r.server.Close()
		up.close()
		return nil, configError(err)
	}
	r.mux = r.routes()
	r.readers.start()
	return r, nil
}

// Ready reports whether there is something to serve: keys, and all revocations
// in force as of some time. How old they are, [Relay.Stats] tells.
func (r *Relay) Ready() bool { return r.verifier.Ready() && r.server.Stats().Position.Timeline != 0 }

// Close ends all streams and everything in the background, and waits for it.
func (r *Relay) Close() error {
	r.closing.Do(func() {
		r.server.Close()
		r.closed = errors.Join(r.verifier.Close(), r.readers.close())
		r.up.close()
	})
	return r.closed
}

// ServeHTTP serves the routes that verifiers ask for.
func (r *Relay) ServeHTTP(w http.ResponseWriter, req *http.Request) { r.mux.ServeHTTP(w, req) }
