package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
	"github.com/counterfoil/counterfoil/httpapi"
	"github.com/counterfoil/counterfoil/memstore"
)

// checkSettings asks whether serve would take the settings, and which of them
// do not go together.
func checkSettings(ctx context.Context, p *patient) (found []finding) {
	for _, stray := range strays(p.app.environ) {
		name, rest, _ := strings.Cut(stray, " is unknown and ignored: ")
		found = append(found, warn("environment", name+" is unknown to every command, and ignored", rest))
	}
	settings, err := p.holdTogether(ctx)
	if err != nil {
		return append(found, fail("serve", "it would not start: "+oneLine(err.Error()), "mend the setting that is named; counterfoil serve -h lists them"))
	}
	found = append(found, ok("serve", "it would take these settings"))
	p.config = &settings.config
	if settings.issuer == "" {
		return append(found, warn("issuer", "--issuer is left out: access tokens name the address of this machine, and are worth nothing elsewhere", "give --issuer, the https URL under which users and services reach the server"))
	}
	found = append(found, checkTopology(settings)...)
	found = append(found, judgeTransport(settings, p.flags.tlsCert != "")...)
	found = append(found, judgePolicy(&settings.config)...)
	return append(found, checkOpenFiles(settings.connections)...)
}

// holdTogether makes of the flags what serve makes of them, without files: the
// certificate has a part of its own. An authority in memory says what the
// library thinks of the rest.
func (p *patient) holdTogether(ctx context.Context) (*serveSettings, error) {
	flags := *p.flags
	if flags.tlsCert != "" && flags.tlsKey != "" {
		flags.tlsCert, flags.tlsKey = "", ""
	}
	quiet := *p.app
	quiet.stderr = io.Discard
	settings, err := flags.settings(&quiet)
	if err != nil {
		return nil, err
	}
	config := settings.config
	if config.Issuer == "" {
		config.Issuer = "http://" + settings.listen
	}
	config.Seal, config.Logger = counterfoil.SealSecrets(make([]byte, 32)), slog.New(slog.DiscardHandler)
	store := memstore.New()
	auth, err := counterfoil.New(ctx, store, config)
	if err != nil {
		return nil, flagError(err)
	}
	_, err = directory.New(auth, store.Users(), directory.Config{Logger: config.Logger, RelyingParty: relyingParty(settings.passkeys, config.Issuer, settings.origins)})
	if field, ok := errors.AsType[*counterfoil.FieldError](err); ok && settings.passkeys != "" && strings.HasPrefix(field.Field, "RelyingParty.") {
		err = usagef("--passkey-domain: %s", field.Message)
	}
	if closing := auth.Close(); err == nil {
		err = closing
	}
	return settings, flagError(err)
}

func checkTopology(s *serveSettings) (found []finding) {
	warnings, err := httpapi.CheckTopology(s.issuer, s.origins...)
	if err != nil {
		return []finding{fail("cookies", oneLine(flagError(err).Error()), "docs/topologies.md has the ways that work")}
	}
	for _, w := range warnings {
		what, do := w, "docs/topologies.md has the ways that work"
		if at := strings.LastIndex(w, "; "); at > 0 {
			what, do = w[:at], w[at+2:]
		}
		found = append(found, warn("cookies", what, do))
	}
	if len(found) == 0 {
		where := "stays at " + s.issuer
		if len(s.origins) > 0 {
			where = "travels between " + s.issuer + " and " + strings.Join(s.origins, ", ")
		}
		found = append(found, ok("cookies", "the session cookie %s", where))
	}
	return found
}

// judgeTransport looks for who stands in front, and whether it was named.
func judgeTransport(s *serveSettings, certificate bool) (found []finding) {
	issuer, err := url.Parse(s.issuer)
	if err != nil {
		return nil
	}
	https := issuer.Scheme == "https"
	switch {
	case https && !certificate && len(s.proxies) == 0:
		found = append(found, warn("proxy", "the issuer is https, and serve speaks plain http: a proxy stands in front, and is not named. Every user seems to come from its address, so one guesser slows down the sign-ins of all",
			"--trusted-proxies with the proxy's address, as serve sees it"))
	case https:
		found = append(found, ok("proxy", "who speaks TLS is known"))
	case s.config.DeviceBinding.Off:
	default:
		found = append(found, warn("device binding", "the issuer is plain http: browsers bind sessions to a device over https only", "an https issuer; or --device-binding=false"))
	}
	if s.metrics.address != "" && !isLoopback(s.metrics.address) {
		found = append(found, warn("metrics", s.metrics.address+" is not loopback, and metrics ask for no credential", "let a firewall keep all but the monitoring out, or listen on a private address"))
	}
	if s.metrics.address == "" {
		found = append(found, warn("metrics", "there are none: nothing can wake anybody", "--metrics-listen 127.0.0.1:9700, and the rules of docs/operations.md"))
	}
	return found
}

// judgePolicy looks for lifetimes that do not go together.
func judgePolicy(c *counterfoil.Config) (found []finding) {
	lifetimes := c.Lifetimes
	if lifetimes == (counterfoil.Lifetimes{}) {
		lifetimes = counterfoil.Consumer
	}
	if c.TokenLifetime > lifetimes.Idle {
		found = append(found, warn("token lifetime", fmt.Sprintf("an access token lives %s, and a session unused for %s has ended: tokens are cut to that", shortDuration(c.TokenLifetime), shortDuration(lifetimes.Idle)), "a --token-lifetime well below --session-idle"))
	}
	if c.TokenLifetime > 5*time.Minute {
		found = append(found, warn("token lifetime", fmt.Sprintf("%s: a verifier that is cut off from the feed lets a revoked session in for so long", shortDuration(c.TokenLifetime)), "--token-lifetime 60s; refreshes cost nobody anything"))
	}
	if c.Degraded > lifetimes.Idle {
		found = append(found, warn("degraded minting", fmt.Sprintf("a node that is cut off mints for %s after it read a session, longer than an unused one lives (%s)", shortDuration(c.Degraded), shortDuration(lifetimes.Idle)), "--degraded 5m, or a longer --session-idle"))
	}
	if window := c.DeviceBinding.Window; !c.DeviceBinding.Off && window > lifetimes.Idle {
		found = append(found, warn("device binding", fmt.Sprintf("copied cookies work for %s, longer than an unused session lives (%s): binding protects nothing", shortDuration(window), shortDuration(lifetimes.Idle)), "--bound-window 10m"))
	}
	if c.Retention < day {
		found = append(found, warn("retention", fmt.Sprintf("ended sessions are forgotten after %s: \"why was I signed out?\" has no answer then", shortDuration(c.Retention)), "--retention 30d"))
	}
	if c.Retention > 400*day {
		found = append(found, warn("retention", fmt.Sprintf("ended sessions stay for %s, with address and browser of their users: the database grows, and so does what a thief finds", shortDuration(c.Retention)), "--retention 30d, unless a law says otherwise"))
	}
	if len(found) == 0 {
		found = append(found, ok("lifetimes", "tokens %s, sessions idle %s and absolute %s, kept for %s after their end",
			shortDuration(c.TokenLifetime), shortDuration(lifetimes.Idle), shortDuration(lifetimes.Absolute), shortDuration(c.Retention)))
	}
	return found
}
