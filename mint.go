package counterfoil

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/counterfoil/counterfoil/internal/claimnames"
	"github.com/counterfoil/counterfoil/internal/jws"
	"github.com/counterfoil/counterfoil/internal/opaque"
	"github.com/counterfoil/counterfoil/internal/strictjson"
	"github.com/counterfoil/counterfoil/verify"
)

// Claims is what an access token says about its user beyond who it is. Nil
// Roles or Scope keep what the session and its subject carry. Extra are the
// application's own claims: at most 1 KB as JSON, no registered name
// (RFC 7519 section 4.3). No secrets: a JWT is readable to its holder.
type Claims struct {
	Roles []string
	Scope []string
	Extra map[string]any
}

const (
	maxExtra  = 1 << 10
	maxRights = 1 << 10
)

// mint signs an access token for a snapshot whose session is good. iat was
// taken before the snapshot was read, so that no token claims to know of a
// change that it does not.
func (a *Authority) mint(ctx context.Context, snap *Snapshot, audience string, iat time.Time) (*Grant, error) {
	if err := a.follower.history.err(); err != nil {
		return nil, fmt.Errorf("%w: %w", verify.ErrUnavailable, err)
	}
	set := a.keys.Load()
	if snap.KeyVersion > set.version {
		// Another node changed the keys: one of ours may be revoked.
		if err := a.loadKeys(ctx); err != nil {
			return nil, fmt.Errorf("%w: %w", verify.ErrUnavailable, err)
		}
		set = a.keys.Load()
	}
	claims, err := a.claims(ctx, snap)
	if err != nil {
		return nil, err
	}
	s := &snap.Session
	exp := iat.Add(a.lifetime()).Truncate(time.Second)
	if end := s.IdleExpiresAt().Truncate(time.Second); end.Before(exp) {
		exp = end
	}
	issued := iat.Truncate(time.Second)
	if !exp.After(issued) {
		return nil, &EndedError{Err: ErrSessionExpired, SessionID: s.ID, EndedAt: s.IdleExpiresAt()}
	}
	rest, err := appendRest(make([]byte, 0, 256), s, snap.Subject.Epoch, claims)
	if err != nil {
		return nil, err
	}
	grant, err := a.sign(set, snap, payloadTimes{audience, iat, exp}, iat, rest)
	if err != nil {
		return nil, err
	}
	a.degraded.keep(snap, iat, rest)
	return grant, nil
}

// payloadTimes is what two access tokens of one snapshot differ in.
type payloadTimes struct {
	audience string
	iat, exp time.Time
}

// sign makes the grant with an access token that is handed out at now.
func (a *Authority) sign(set *keySet, snap *Snapshot, t payloadTimes, now time.Time, rest []byte) (*Grant, error) {
	s := &snap.Session
	token, err := set.signer.Sign(a.payload(s, t, rest))
	if err != nil {
		return nil, fmt.Errorf("sign access token: %w", err)
	}
	if len(token) > jws.MaxToken {
		return nil, &FieldError{"claims", fmt.Sprintf("the access token would have %d characters, %d is the limit", len(token), jws.MaxToken)}
	}
	a.counters.mints.Add(1)
	expiresIn := t.exp.Sub(now)
	return &Grant{
		Session: *s, AccessToken: token, ExpiresAt: t.exp, ServerTime: snap.Now,
		ExpiresIn: expiresIn, RefreshAfter: refreshAfter(expiresIn),
		cookie: a.cookieName(s.ClientID),
	}, nil
}

// lifetime is the configured one less up to a tenth, so that tokens issued
// together are not refreshed together.
func (a *Authority) lifetime() time.Duration {
	full := a.cfg.TokenLifetime
	return full - rand.N(full/10)
}

// refreshAfter is 60 to 80 % of what is left.
func refreshAfter(left time.Duration) time.Duration {
	return left*6/10 + rand.N(left*2/10+1)
}

// claims merges, in rising order of precedence: the subject's rights, what
// the session was started with, and what the Claims hook says now.
func (a *Authority) claims(ctx context.Context, snap *Snapshot) (Claims, error) {
	s := &snap.Session
	c := Claims{Roles: s.Roles, Scope: s.Scope, Extra: s.Extra}
	if c.Roles == nil {
		c.Roles = snap.Subject.Roles
	}
	if c.Scope == nil {
		c.Scope = snap.Subject.Scope
	}
	if a.cfg.Claims != nil {
		view := *s
		view.Roles, view.Scope = c.Roles, c.Scope
		own, err := a.cfg.Claims(ctx, view)
		if err != nil {
			return Claims{}, fmt.Errorf("%w: claims for %s: %w", verify.ErrUnavailable, s.ID, err)
		}
		if own.Roles != nil {
			c.Roles = own.Roles
		}
		if own.Scope != nil {
			c.Scope = own.Scope
		}
		if own.Extra != nil {
			c.Extra = own.Extra
		}
	}
	return c, c.validate()
}

func (c *Claims) validate() error {
	if err := (&Rights{Roles: c.Roles, Scope: c.Scope}).Validate(); err != nil {
		return err
	}
	if len(c.Extra) == 0 {
		return nil
	}
	folded := make(map[string]string, len(c.Extra))
	for name := range c.Extra {
		if name == "" || claimnames.Reserved(name) {
			return &FieldError{"claims", fmt.Sprintf("%.64q is a registered or reserved claim name, choose another", name)}
		}
		// Readers that ignore case would take one for the other (SEC-60).
		if twin, ok := folded[strictjson.FoldsTo(name)]; ok {
			return &FieldError{"claims", fmt.Sprintf("%.64q and %.64q differ in case only, rename one", min(name, twin), max(name, twin))}
		}
		folded[strictjson.FoldsTo(name)] = name
	}
	return nil
}

// Validate checks that roles and scopes can travel in a token: short,
// printable, scopes as RFC 6749 section 3.3 spells them, 1 KB together.
func (r *Rights) Validate() error {
	size := 0
	for i, role := range r.Roles {
		if role == "" || len(role) > 64 || !printable(role) {
			return &FieldError{fmt.Sprintf("roles[%d]", i), "a role is 1 to 64 bytes of printable text"}
		}
		size += len(role) + 3
	}
	for i, sc := range r.Scope {
		if !validScope(sc) {
			return &FieldError{fmt.Sprintf("scope[%d]", i), "a scope is 1 to 128 visible ASCII characters without quotes, spaces or backslashes"}
		}
		size += len(sc) + 1
	}
	if size > maxRights {
		return &FieldError{"roles", fmt.Sprintf("roles and scope take %d bytes in each access token, %d is the limit", size, maxRights)}
	}
	return nil
}

func validScope(s string) bool {
	if s == "" || len(s) > 128 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c == '"' || c == '\\' || c >= 0x7f {
			return false
		}
	}
	return true
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// payload writes the claims of RFC 9068 section 2.2 and ours. By hand, since
// this runs at each refresh: a fifth of the signature's cost would go to reflection.
func (a *Authority) payload(s *Session, t payloadTimes, rest []byte) []byte {
	b := make([]byte, 0, 384+len(rest))
	b = append(b, `{"iss":`...)
	b = strictjson.AppendString(b, a.cfg.Issuer)
	b = append(b, `,"sub":`...)
	b = strictjson.AppendString(b, s.Subject)
	b = append(b, `,"aud":`...)
	b = strictjson.AppendString(b, t.audience)
	b = append(b, `,"client_id":`...)
	b = strictjson.AppendString(b, s.ClientID)
	b = append(b, `,"sid":"`...)
	b = append(b, s.ID...)
	b = append(b, `","iat":`...)
	b = strconv.AppendInt(b, t.iat.Unix(), 10)
	b = append(b, `,"exp":`...)
	b = strconv.AppendInt(b, t.exp.Unix(), 10)
	b = append(b, `,"jti":"`...)
	b = append(b, opaque.RandomText()...)
	b = append(b, '"')
	b = append(b, rest...)
	return append(b, '}')
}

// appendRest writes what each access token of a snapshot says alike.
func appendRest(b []byte, s *Session, epoch int64, c Claims) ([]byte, error) {
	b = append(b, `,"auth_time":`...)
	b = strconv.AppendInt(b, s.AuthTime.Unix(), 10)
	b = append(b, `,"amr":`...)
	b = appendStrings(b, s.Methods)
	b = append(b, `,"epoch":`...)
	b = strconv.AppendInt(b, epoch, 10)
	if len(c.Roles) > 0 {
		b = append(b, `,"roles":`...)
		b = appendStrings(b, c.Roles)
	}
	if len(c.Scope) > 0 {
		b = append(b, `,"scope":`...)
		b = strictjson.AppendString(b, strings.Join(c.Scope, " "))
	}
	return appendExtra(b, c.Extra)
}

func appendStrings(b []byte, list []string) []byte {
	b = append(b, '[')
	for i, s := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = strictjson.AppendString(b, s)
	}
	return append(b, ']')
}

func appendExtra(b []byte, extra map[string]any) ([]byte, error) {
	if len(extra) == 0 {
		return b, nil
	}
	start := len(b)
	for _, name := range slices.Sorted(maps.Keys(extra)) {
		value, err := json.Marshal(extra[name])
		if err != nil {
			return nil, &FieldError{"claims." + name, "cannot be written as JSON: " + err.Error()}
		}
		b = append(b, ',')
		b = strictjson.AppendString(b, name)
		b = append(b, ':')
		b = append(b, value...)
	}
	if size := len(b) - start; size > maxExtra {
		return nil, &FieldError{"claims", fmt.Sprintf("the application's own claims take %d bytes, %d is the limit", size, maxExtra)}
	}
	// What our own verifiers would refuse (depth, number of members, names
	// that differ in case only) is refused here, where it can be mended.
	doc := append([]byte{'{'}, b[start+1:]...)
	if err := strictjson.Object(append(doc, '}'), func(string, []byte) error { return nil }); err != nil {
		return nil, &FieldError{"claims", err.Error()}
	}
	return b, nil
}
