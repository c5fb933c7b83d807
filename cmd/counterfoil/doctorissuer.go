package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/feed"
	"github.com/counterfoil/counterfoil/internal/jwk"
)

// public is what a server says of itself to everybody.
type public struct {
	Issuer           string `json:"issuer"`
	MaxTokenLifetime int64  `json:"cf_max_token_lifetime"`
	version          int64
	keys             []string
	document         []byte
}

// checkIssuer goes the way that users and verifiers go.
func checkIssuer(ctx context.Context, p *patient) []finding {
	at := string(p.flags.issuer)
	if at == "" || p.config == nil {
		return nil
	}
	_, found := p.checkServer(ctx, at, false)
	return found
}

// checkServers asks each node that was named, and holds them against each other.
func checkServers(ctx context.Context, p *patient) (found []finding) {
	var first *public
	for i, at := range p.authorities {
		said, some := p.checkServer(ctx, at, true)
		for j := range some {
			some[j].Group = "server " + at
		}
		found = append(found, some...)
		switch {
		case said == nil:
		case first == nil:
			first = said
		case !bytes.Equal(first.document, said.document):
			found = append(found, fail("agreement", fmt.Sprintf("%s and %s answer differently at /.well-known/oauth-authorization-server: they run with different settings", p.authorities[0], p.authorities[i]), "give every node the same file of settings"))
		case first.version != said.version || !slices.Equal(first.keys, said.keys):
			found = append(found, fail("agreement", fmt.Sprintf("%s and %s publish different signing keys", p.authorities[0], p.authorities[i]), "see that they use the same database: counterfoil doctor on each"))
		default:
			found = append(found, ok("agreement", "%s and %s agree on settings and keys", p.authorities[0], p.authorities[i]))
		}
	}
	if len(p.authorities) > 1 && p.database != nil && p.database.isSQLite() {
		found = append(found, fail("nodes", "SQLite is for one node: several on one file wait for each other's locks, and on two machines damage it", "counterfoil move to PostgreSQL, or run one node"))
	}
	return found
}

// checkServer asks one server. Directly: its feed too.
func (p *patient) checkServer(ctx context.Context, at string, directly bool) (*public, []finding) {
	health, err := ask(ctx, p.http, at+"/readyz", "")
	if err != nil {
		return nil, []finding{p.unreachable(at, err)}
	}
	var found []finding
	switch health.status {
	case http.StatusOK:
		found = append(found, ok("ready", "%s answers", at))
	case http.StatusServiceUnavailable:
		found = append(found, fail("ready", fmt.Sprintf("%s runs, and is not ready: %s", at, health.problem()), "look at its log, and at the database and clock checks above"))
	default:
		found = append(found, fail("ready", fmt.Sprintf("%s/readyz answers %d: this is not Counterfoil, or a proxy in front does not pass on its paths", at, health.status), "pass /.well-known/, /v1/, /oauth2/ and /account/ on: docs/topologies.md"))
		return nil, found
	}
	found = append(found, p.clockOf(health.Response, health.asked, health.answered)...)
	if health.TLS != nil && len(health.TLS.PeerCertificates) > 0 {
		expiry := judgeExpiry(health.TLS.PeerCertificates[0], p.now())
		expiry.Check = "certificate"
		found = append(found, expiry)
	}
	said, err := p.discover(ctx, at)
	if err != nil {
		return nil, append(found, fail("discovery", err.Error(), "pass /.well-known/ on to serve: docs/topologies.md"))
	}
	found = append(found, p.judgeDiscovery(at, said)...)
	if directly {
		found = append(found, p.checkStream(ctx, at)...)
	}
	return said, found
}

func (p *patient) unreachable(at string, err error) finding {
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return fail("reach", fmt.Sprintf("the certificate at %s has expired: every client refuses it", at), "renew it, and restart what speaks TLS there")
	}
	if verification, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return fail("reach", fmt.Sprintf("the certificate at %s is not trusted here: %v", at, verification.Err), "send the whole chain; with an authority of your own, add its root to this machine")
	}
	return fail("reach", fmt.Sprintf("%s cannot be reached from here: %s", at, oneLine(err.Error())), "see that serve runs (systemctl status counterfoil) and that the name leads to it; users may have another way than this machine")
}

// discover reads what verifiers read first.
func (p *patient) discover(ctx context.Context, at string) (*public, error) {
	const discovery, keys = "/.well-known/oauth-authorization-server", "/.well-known/jwks.json"
	document, err := ask(ctx, p.http, at+discovery, "")
	if err != nil {
		return nil, fmt.Errorf("%s%s: %w", at, discovery, err)
	}
	said := &public{document: document.body}
	if err := json.Unmarshal(document.body, said); err != nil || document.status != http.StatusOK {
		return nil, fmt.Errorf("%s%s answers %d, and no metadata", at, discovery, document.status)
	}
	published, err := ask(ctx, p.http, at+keys, "")
	if err != nil {
		return nil, fmt.Errorf("%s%s: %w", at, keys, err)
	}
	set, err := jwk.ParseSet(published.body)
	if err != nil || published.status != http.StatusOK {
		return nil, fmt.Errorf("%s%s answers %d, and no key set", at, keys, published.status)
	}
	said.version = set.Version
	for _, k := range set.Keys {
		said.keys = append(said.keys, k.KID())
	}
	return said, nil
}

func (p *patient) judgeDiscovery(at string, said *public) (found []finding) {
	if issuer := string(p.flags.issuer); issuer != "" && said.Issuer != issuer {
		found = append(found, fail("discovery", fmt.Sprintf("%s calls itself %s, these settings say %s: verifiers refuse its tokens", at, said.Issuer, issuer), "give --issuer the same value on every node, and mend the proxy if this is another server"))
	}
	if p.config != nil && said.MaxTokenLifetime > 0 && int64(p.config.TokenLifetime/time.Second) > said.MaxTokenLifetime {
		found = append(found, warn("discovery", fmt.Sprintf("%s promises tokens of at most %d s, these settings make longer ones", at, said.MaxTokenLifetime), "restart it with these settings"))
	}
	if p.ring != nil {
		found = append(found, judgePublished(at, p.ring, said)...)
	}
	if len(found) == 0 {
		found = append(found, ok("discovery", "issuer and keys are those of settings and database"))
	}
	return found
}

// judgePublished holds the key set of a server against the database.
func judgePublished(at string, ring *counterfoil.KeyRing, said *public) []finding {
	var lacking []string
	for _, k := range ring.Keys {
		if (k.State == counterfoil.KeyActive || k.State == counterfoil.KeyNext) && !slices.Contains(said.keys, k.ID) {
			lacking = append(lacking, shortKid(k.ID))
		}
		if k.State == counterfoil.KeyRevoked && slices.Contains(said.keys, k.ID) {
			return []finding{fail("keys", fmt.Sprintf("%s still publishes %s, which is revoked: something answers in its place from a cache", at, shortKid(k.ID)), "purge /.well-known/jwks.json from the cache in front")}
		}
	}
	switch {
	case len(lacking) > 0 && said.version > ring.Version:
		return nil // it changed while we were looking
	case len(lacking) > 0 && said.version < ring.Version:
		return []finding{warn("keys", fmt.Sprintf("%s publishes version %d of the keys, the database has %d: a cache in front is up to five minutes old, or the server does not reach its database", at, said.version, ring.Version), "run the doctor again in five minutes")}
	case len(lacking) > 0:
		return []finding{fail("keys", fmt.Sprintf("%s does not publish %s: it uses another database than --database", at, strings.Join(lacking, ", ")), "give the doctor and every node the same --database")}
	}
	return nil
}

const (
	feedAgeWarn = time.Second
	feedAgeFail = 5 * time.Second
)

// checkStream follows the feed of a server until it has told its age and all
// that the log held before.
func (p *patient) checkStream(ctx context.Context, at string) []finding {
	const check = "feed"
	if p.apiKey == "" {
		return []finding{warn(check, "it was not looked at: it wants an API key", "counterfoil api-key create --name doctor --scope verify --expires 30d, and give it in COUNTERFOIL_API_KEY")}
	}
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, at+"/v1/revocations", nil)
	if err != nil {
		return []finding{fail(check, oneLine(err.Error()), "mend --authority")}
	}
	request.Header.Set("Authorization", "Bearer "+p.apiKey)
	answer, err := p.http.Do(request)
	if err != nil {
		return []finding{fail(check, oneLine(withoutURL(err).Error()), "see that nothing between keeps streams from passing (nginx: proxy_buffering off)")}
	}
	defer func() { _ = answer.Body.Close() }() // it never ends by itself
	switch answer.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized, http.StatusForbidden:
		return []finding{fail(check, fmt.Sprintf("%s refuses the API key in COUNTERFOIL_API_KEY (%d)", at, answer.StatusCode), "counterfoil api-key list; counterfoil api-key create --name doctor --scope verify")}
	default:
		return []finding{fail(check, fmt.Sprintf("%s answers %d: verifiers do not hear of revocations", at, answer.StatusCode), "look at its log")}
	}
	return []finding{p.follow(answer, at)}
}

func (p *patient) follow(answer *http.Response, at string) finding {
	const check = "feed"
	reader, wanted := feed.NewReader(answer.Body), p.head
	var reached feed.Position
	var oldest time.Duration
	for beats := 0; beats < 3; {
		frame, err := reader.Next()
		if err != nil {
			return fail(check, fmt.Sprintf("%s stopped telling (%s): verifiers count it as cut off", at, oneLine(err.Error())), "see that nothing between collects the stream (nginx: proxy_buffering off)")
		}
		if frame.HasPos {
			reached = frame.Pos
		}
		if frame.Kind == feed.Heartbeat {
			beats++
			oldest = max(oldest, time.Duration(frame.Beat.AgeMS)*time.Millisecond)
		}
	}
	switch {
	case wanted.Timeline != 0 && reached.Timeline != wanted.Timeline:
		return fail(check, fmt.Sprintf("%s tells timeline %d, the database has %d: it uses another database, or a backup was restored under it", at, reached.Timeline, wanted.Timeline), "restart it with this --database")
	case wanted.Timeline != 0 && reached.Seq < wanted.Position:
		return warn(check, fmt.Sprintf("%s has resolved up to %d, the log is at %d: an open transaction holds the rest back, or it lags", at, reached.Seq, wanted.Position), "see open transactions above, and run the doctor again")
	}
	return judgeAge(oldest)
}

func judgeAge(age time.Duration) finding {
	const check = "feed"
	says := fmt.Sprintf("what it tells is up to %d ms old", age.Milliseconds())
	switch {
	case age > feedAgeFail:
		return fail(check, says+": it does not see what other nodes revoke", "see its log and the database checks above")
	case age > feedAgeWarn:
		return warn(check, says+"; with a healthy database it is under 150 ms", "see its log and the database checks above")
	}
	return ok(check, "%s", says)
}

// problem says why a server refused, in its own words.
func (r *reply) problem() string {
	var p struct {
		Detail string `json:"detail"`
		Code   string `json:"code"`
	}
	if json.Unmarshal(r.body, &p) == nil && p.Detail+p.Code != "" {
		return strings.TrimSpace(p.Detail + " (" + p.Code + ")")
	}
	return http.StatusText(r.status)
}
