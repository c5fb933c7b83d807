package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/httpapi"
	"github.com/counterfoil/counterfoil/pages"
)

func serveCommand() *command {
	return &command{
		name:  "serve",
		short: "Run the authority as a server",
		long: `On SQLite the signing keys are sealed with FILE.seal beside the database, which is
made on the first start: back it up, apart from the database. On PostgreSQL give
--seal-file or COUNTERFOIL_SEAL (base64 of 32 bytes; several, newest first, by
comma).

SIGINT or SIGTERM: /readyz fails at once, all goes on being served for --drain,
requests under way are finished, then it ends. A second one ends it at once.`,
		examples: []string{
			"counterfoil serve --dev",
			"counterfoil serve --issuer https://app.example --trusted-proxies 127.0.0.1",
			"counterfoil serve --listen :443 --issuer https://auth.example --tls-cert cert.pem --tls-key key.pem",
			"COUNTERFOIL_SEAL=… counterfoil serve --issuer https://auth.example --database postgres://app@db/app",
		},
		setup: func(a *app, f *flags) func(context.Context, []string) error {
			s := newServeFlags(f)
			return func(ctx context.Context, args []string) error {
				if err := noArgs(args); err != nil {
					return err
				}
				settings, err := s.settings(a)
				if err != nil {
					return err
				}
				return serve(ctx, a, settings)
			}
		},
	}
}

// defaultDrain is for databases that other nodes may be serving from: what
// load balancers take to notice that one is not ready.
const defaultDrain = 5 * time.Second

// serveFlags are the flags as typed.
type serveFlags struct {
	listenFlags
	flags *flags

	issuer, database, sealFile, sessions     textValue
	dev, longTokens, pages                   boolValue
	pagesName                                textValue
	passkeyDomain                            textValue
	audiences, origins, moreClients          listValue
	proxies                                  networksValue
	clientID                                 *textValue
	algorithm, profile                       string
	tokenLifetime, absolute, idle, retention durationValue
	degraded                                 durationValue
	degradedSessions, sessionsWait           intValue
	deviceBinding                            boolValue
	boundWindow                              durationValue
	drain                                    durationValue
}

func newServeFlags(f *flags) *serveFlags {
	s := &serveFlags{
		listenFlags: newListenFlags("127.0.0.1:8700", 10000), flags: f, database: defaultDatabase,
		algorithm: "ES256", profile: "consumer",
		tokenLifetime: durationValue(time.Minute), retention: durationValue(30 * day),
		deviceBinding: true, boundWindow: durationValue(10 * time.Minute),
		degradedSessions: 20000, pages: true, pagesName: "Your account",
	}
	f.add(&s.listen, "listen", "ADDRESS", "address and port to listen on")
	f.add(&s.issuer, "issuer", "URL", "public URL, the iss of access tokens; on loopback http://ADDRESS when left out")
	f.add(&s.database, "database", "URL", "sqlite:FILE or postgres://USER@HOST/NAME")
	f.add(&s.sessions, "sessions", "URL", sessionsUsage)
	f.add(&s.sessionsWait, "sessions-wait", "N", "replicas of Redis that have to have a sign-in before it is answered; their promotion then loses none")
	f.add(&s.sealFile, "seal-file", "FILE", "secret that seals the signing keys; FILE.seal beside a SQLite database when left out")
	f.add(&s.dev, "dev", "", "try it out: memory only, loopback only, an API key printed once")
	s.tlsFlags(f)
	f.add(&s.proxies, "trusted-proxies", "NETWORKS", "networks whose X-Forwarded-For is believed, and that may ask the gateway, by comma")
	s.metricsFlag(f)
	f.add(&s.audiences, "audience", "NAME", "service that access tokens may be for; several by comma, the first is the default (app when left out)")
	s.clientID = clientIDFlag(f)
	f.add(&s.moreClients, "more-client-id", "ID", "further application, with a cookie of its own at the same host; several by comma")
	f.add(&choiceValue{&s.algorithm, []string{"ES256", "EdDSA"}}, "algorithm", "ALG", "signs access tokens: ES256 or EdDSA")
	f.add(&s.tokenLifetime, "token-lifetime", "DURATION", "of access tokens, 30s to 5m")
	f.add(&s.longTokens, "long-token-lifetime", "", "permit a --token-lifetime of up to 1h: a verifier that is cut off lets a revoked session in for so long")
	f.add(&s.degraded, "degraded", "DURATION", "while cut off from the database, mint from what was read at most so long ago: 30s to 1h, 5m is a good choice; off when left out")
	f.add(&s.degradedSessions, "degraded-sessions", "N", "of how many sessions --degraded keeps a copy, 1.5 kB each")
	f.add(&choiceValue{&s.profile, []string{"consumer", "business", "strict"}}, "profile", "NAME", "session lifetimes: consumer 30d, idle 7d; business 24h, 1h; strict 12h, 15m")
	f.add(&s.absolute, "session-absolute", "DURATION", "session's life at most, in place of the profile's")
	f.add(&s.idle, "session-idle", "DURATION", "session's life unused, in place of the profile's")
	f.add(&s.deviceBinding, "device-binding", "", "bind sessions to browsers that can hold a key for them; --device-binding=false: do not, and ask no bound session for proof")
	f.add(&s.boundWindow, "bound-window", "DURATION", "how long copied cookies of a device-bound session work; browsers renew them")
	f.add(&s.retention, "retention", "DURATION", "how long ended sessions stay for audit")
	f.add(&s.origins, "origin", "ORIGIN", "other origin whose pages may call with the cookie (CORS); several by comma")
	f.add(&s.passkeyDomain, "passkey-domain", "HOST", "host that passkeys are bound to, when pages at several --origin hosts below it share them; the issuer's when left out, never changed later")
	f.add(&s.pages, "pages", "", "serve sign-in, devices and the other pages of an account under /account/; --pages=false: do not")
	f.add(&s.pagesName, "pages-name", "NAME", "the application's name on these pages")
	s.loadFlags(f)
	f.add(&s.drain, "drain", "DURATION", "how long to go on serving, not ready, once told to stop, so that load balancers send nothing more; on PostgreSQL 5s when left out, else 0s")
	s.shutdownFlag(f)
	f.configFlag()
	return s
}

// serveSettings are flags that hold together.
type serveSettings struct {
	listening
	issuer    string // empty: made from the address that was listened on
	config    counterfoil.Config
	database  *database // nil with --dev
	seal      *seal     // chosen once the port is ours
	sealFile  string
	sealText  string
	origins   []string
	proxies   []netip.Prefix
	pagesName string // empty: no pages
	passkeys  string // the relying party's ID; empty: the issuer's host
	drain     time.Duration
}

func (s *serveFlags) settings(a *app) (*serveSettings, error) {
	common, err := s.listening(a, "8700")
	if err != nil {
		return nil, err
	}
	out := &serveSettings{
		listening: common, issuer: string(s.issuer), origins: s.origins, proxies: s.proxies,
		passkeys: string(s.passkeyDomain), sealFile: string(s.sealFile),
	}
	out.sealText, _ = a.lookupEnv(sealVariable)
	out.drain = time.Duration(s.drain)
	if s.pages {
		out.pagesName = string(s.pagesName)
	}
	for _, check := range []func(*serveSettings) error{s.checkPages, s.checkDatabase, s.checkOrigins, s.checkIssuer} {
		if err := check(out); err != nil {
			return nil, err
		}
	}
	out.config = s.config(out)
	return out, nil
}

func (s *serveFlags) checkDatabase(out *serveSettings) (err error) {
	if !s.dev {
		out.database, err = (&storesValue{s.database, s.sessions}).parse()
		switch {
		case err != nil:
			return err
		case s.sessionsWait < 0:
			return usagef("--sessions-wait %d: want 0 or more", s.sessionsWait)
		case out.database.redis != nil:
			out.database.redis.log, out.database.redis.replicas = out.log, int(s.sessionsWait)
		case s.sessionsWait > 0:
			return usagef("--sessions-wait wants --sessions")
		}
		if !out.database.isSQLite() && !s.flags.has("drain") {
			out.drain = defaultDrain
		}
		return nil
	}
	switch {
	case s.flags.has("database"):
		return usagef("--dev keeps everything in memory: leave out --database, or --dev")
	case s.sessions != "":
		return usagef("--dev keeps everything in memory: leave out --sessions, or --dev")
	case s.flags.has("seal-file") || out.sealText != "":
		return usagef("--dev keeps everything in memory: leave out the seal, or --dev")
	case !isLoopback(out.listen):
		return usagef("--dev listens on loopback only, not on %s", out.listen)
	}
	return nil
}

func (s *serveFlags) checkOrigins(out *serveSettings) error {
	for _, origin := range out.origins {
		if err := httpapi.CheckOrigin(origin); err != nil {
			if field, ok := errors.AsType[*counterfoil.FieldError](err); ok {
				return usagef("--origin: %s", field.Message)
			}
			return usagef("--origin: %v", err)
		}
	}
	return nil
}

func (s *serveFlags) checkPages(out *serveSettings) error {
	if name := string(s.pagesName); bool(s.pages) && !pages.ValidName(name) {
		return usagef("--pages-name %q: want 1 to 60 characters on one line", name)
	}
	if at := issuerPath(out.issuer); bool(s.pages) && at != "" && (path.Clean(at) != at || !plainPath.MatchString(at)) {
		return usagef("--issuer %s: pages want a path of letters, digits and - . _ ~ (or give --pages=false)", out.issuer)
	}
	return nil
}

var plainPath = regexp.MustCompile(`^[A-Za-z0-9._~/-]+$`)

func (s *serveFlags) checkIssuer(out *serveSettings) error {
	if out.issuer != "" {
		return nil
	}
	switch {
	case out.certificate != nil:
		return usagef("--issuer is missing: the https URL under which users and services reach this server")
	case !isLoopback(out.listen):
		return usagef("--issuer is missing: the https URL under which users and services reach this server (on loopback it can be left out)")
	}
	return nil
}

func (s *serveFlags) config(out *serveSettings) counterfoil.Config {
	lifetimes := map[string]counterfoil.Lifetimes{
		"consumer": counterfoil.Consumer, "business": counterfoil.Business, "strict": counterfoil.Strict,
	}[s.profile]
	if s.absolute != 0 {
		lifetimes.Absolute = time.Duration(s.absolute)
		if s.idle == 0 {
			lifetimes.Idle = min(lifetimes.Idle, lifetimes.Absolute)
		}
	}
	if s.idle != 0 {
		lifetimes.Idle = time.Duration(s.idle)
	}
	audiences := []string(s.audiences)
	if len(audiences) == 0 {
		audiences = []string{"app"}
	}
	config := counterfoil.Config{
		Issuer: out.issuer, Audiences: audiences, ClientID: string(*s.clientID), MoreClientIDs: s.moreClients, Algorithm: s.algorithm,
		TokenLifetime: time.Duration(s.tokenLifetime), LongTokenLifetime: bool(s.longTokens),
		Degraded: time.Duration(s.degraded), DegradedSessions: int(s.degradedSessions),
		Lifetimes: lifetimes, Retention: time.Duration(s.retention), TrustedProxies: out.proxies, Logger: out.log,
		DeviceBinding: counterfoil.DeviceBinding{Off: !bool(s.deviceBinding), Window: time.Duration(s.boundWindow)},
		MaxWatches:    max(1, out.connections/2), // the other half is for everything else
	}
	if out.pagesName != "" {
		prefix := issuerPath(out.issuer) + accountPath
		config.SignedOut, config.StepUp = pages.SignedOut(prefix), pages.StepUp(prefix)
	}
	return config
}

// isLoopback reports whether only this machine can reach the address.
func isLoopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// issuerPath is the path of an issuer that has one, or empty.
func issuerPath(issuer string) string {
	u, err := url.Parse(issuer)
	if err != nil {
		return ""
	}
	return strings.TrimRight(u.Path, "/")
}
