// Package vectors_test runs the vectors against the verifier in Go. The one in
// TypeScript runs the same files (sdk/node/test).
package vectors_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/counterfoil/counterfoil/internal/feed"
	"github.com/counterfoil/counterfoil/internal/jwk"
	"github.com/counterfoil/counterfoil/internal/jws"
	"github.com/counterfoil/counterfoil/internal/revoked"
	"github.com/counterfoil/counterfoil/internal/strictjson"
	"github.com/counterfoil/counterfoil/verify"
)

//go:generate go run ./generate

// load reads a file and insists on knowing every member of it.
func load(t *testing.T, name string, into any) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// head is what the cases of a file have in common.
type head struct {
	About    string          `json:"about"`
	Issuer   string          `json:"issuer"`
	Audience string          `json:"audience"`
	Now      int64           `json:"now"`
	Longest  int64           `json:"max_token_lifetime"`
	JWKS     json.RawMessage `json:"jwks"`
}

type ruleSet struct {
	MaxTokenAge    float64  `json:"max_token_age"`
	RefreshWhenOld bool     `json:"refresh_when_old"`
	MaxAuthAge     float64  `json:"max_auth_age"`
	Roles          []string `json:"role"`
	Scope          []string `json:"scope"`
	Live           bool     `json:"live"`
	NoDegraded     bool     `json:"no_degraded"`
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func (r *ruleSet) rules() (rules []verify.Rule) {
	if r == nil {
		return nil
	}
	if r.MaxTokenAge > 0 {
		rules = append(rules, verify.MaxTokenAge(seconds(r.MaxTokenAge)))
	}
	if r.RefreshWhenOld {
		rules = append(rules, verify.RefreshWhenOld())
	}
	if r.MaxAuthAge > 0 {
		rules = append(rules, verify.MaxAuthAge(seconds(r.MaxAuthAge)))
	}
	for _, role := range r.Roles {
		rules = append(rules, verify.Role(role))
	}
	if len(r.Scope) > 0 {
		rules = append(rules, verify.Scope(r.Scope...))
	}
	if r.Live {
		rules = append(rules, verify.Live())
	}
	if r.NoDegraded {
		rules = append(rules, verify.NoDegraded())
	}
	return rules
}

// codes are the errors that an authority may answer a live check with.
var codes = map[string]error{
	"active": nil, "session_revoked": verify.ErrSessionRevoked, "session_expired": verify.ErrSessionExpired, "session_unknown": verify.ErrSessionUnknown,
	"token_stale": verify.ErrTokenStale, "token_expired": verify.ErrTokenExpired, "token_revoked": verify.ErrTokenRevoked, "unavailable": verify.ErrUnavailable,
}

// verifier is one with the keys of the file and what a case says of it.
func (h head) verifier(t *testing.T, cfg verify.Config, now, longest int64, revocations json.RawMessage, live string) *verify.Verifier {
	t.Helper()
	set, err := jwk.ParseSet(h.JWKS)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]*jws.PublicKey{}
	for _, k := range set.Keys {
		keys[k.KID()] = k
	}
	cfg.Issuer, cfg.Logger = h.Issuer, slog.New(slog.DiscardHandler)
	cfg.Clock = func() time.Time { return time.Unix(now, 0) }
	local := verify.Local{
		Key:              func(kid string) (*jws.PublicKey, bool) { k, ok := keys[kid]; return k, ok },
		Revocations:      revoked.NewTable(cfg.Clock),
		MaxTokenLifetime: func() time.Duration { return time.Duration(longest) * time.Second },
	}
	if len(revocations) > 0 {
		entries, _, err := revoked.Decode(revocations)
		if err != nil {
			t.Fatal(err)
		}
		local.Revocations.Apply(entries...)
	}
	if live != "" {
		answer, known := codes[live]
		if !known {
			t.Fatalf("no answer %q", live)
		}
		local.Live = func(context.Context, *verify.Claims) error { return answer }
	}
	v, err := verify.NewLocal(cfg, local)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestTokens(t *testing.T) {
	var file struct {
		head
		Cases []struct {
			Name        string          `json:"name"`
			Token       string          `json:"token"`
			Now         int64           `json:"now"`
			Audience    string          `json:"audience"`
			AnyAudience bool            `json:"any_audience"`
			Algorithms  []string        `json:"algorithms"`
			Longest     int64           `json:"max_token_lifetime"`
			Revocations json.RawMessage `json:"revocations"`
			Rules       *ruleSet        `json:"rules"`
			Live        string          `json:"live"`
			Expect      struct {
				Code   string         `json:"code"`
				Claims map[string]any `json:"claims"`
				Scope  []string       `json:"scope"`
				MaxAge int64          `json:"max_age"`
			} `json:"expect"`
		} `json:"cases"`
	}
	load(t, "tokens.json", &file)
	seen := map[string]bool{}
	for _, c := range file.Cases {
		seen[c.Expect.Code] = true
		t.Run(c.Name, func(t *testing.T) {
			cfg := verify.Config{Audience: c.Audience, AcceptAnyAudience: c.AnyAudience, Algorithms: c.Algorithms}
			if cfg.Audience == "" && !cfg.AcceptAnyAudience {
				cfg.Audience = file.Audience
			}
			now, longest := c.Now, c.Longest
			if now == 0 {
				now = file.Now
			}
			if longest == 0 {
				longest = file.Longest
			}
			v := file.verifier(t, cfg, now, longest, c.Revocations, c.Live)
			for _, attempt := range []string{"cold", "warm"} {
				claims, err := v.Check(t.Context(), c.Token, c.Rules.rules()...)
				if code(err) != c.Expect.Code {
					t.Fatalf("%s: %v, want %q", attempt, err, c.Expect.Code)
				}
				var e *verify.Error
				if errors.As(err, &e) && (!slices.Equal(e.Scope, c.Expect.Scope) || e.MaxAge != time.Duration(c.Expect.MaxAge)*time.Second) {
					t.Errorf("%s: %+v", attempt, e)
				}
				for name, want := range c.Expect.Claims {
					if got := claim(claims, name); !same(got, want) {
						t.Errorf("%s: %s is %v, want %v", attempt, name, got, want)
					}
				}
			}
		})
	}
	for _, code := range []string{
		"", verify.CodeTokenInvalid, verify.CodeTokenExpired, verify.CodeTokenStale, verify.CodeTokenRevoked, verify.CodeTokenTooOld, verify.CodeAudienceMismatch, verify.CodeInsufficientScope,
		verify.CodeInsufficientAuth, verify.CodeSessionRevoked, verify.CodeSessionExpired, verify.CodeSessionUnknown, verify.CodeUnavailable,
	} {
		if !seen[code] {
			t.Errorf("no token with the code %q", code)
		}
	}
}

func code(err error) string {
	var e *verify.Error
	if errors.As(err, &e) {
		return e.Code
	}
	if err != nil {
		return "an error of another type"
	}
	return ""
}

func claim(c *verify.Claims, name string) any {
	return map[string]any{
		"iss": c.Issuer, "sub": c.Subject, "aud": c.Audience, "client_id": c.ClientID, "sid": c.SessionID, "jti": c.ID, "iat": c.IssuedAt.Unix(), "exp": c.ExpiresAt.Unix(),
		"auth_time": c.AuthTime.Unix(), "amr": append([]string{}, c.Methods...), "epoch": c.Epoch, "roles": append([]string{}, c.Roles...), "scope": append([]string{}, c.Scope...), "degraded": c.Degraded,
	}[name]
}

// same compares what JSON makes of two values.
func same(a, b any) bool {
	var forms [2]any
	for i, v := range [2]any{a, b} {
		if data, err := json.Marshal(v); err != nil || json.Unmarshal(data, &forms[i]) != nil {
			return false
		}
	}
	return reflect.DeepEqual(forms[0], forms[1])
}

func TestKeySets(t *testing.T) {
	var file struct {
		About string
		Cases []struct {
			Name, Document string
			Refused        bool
			Version        int64
			Keys           []string
		}
	}
	load(t, "jwks.json", &file)
	for _, c := range file.Cases {
		set, err := jwk.ParseSet([]byte(c.Document))
		if (err != nil) != c.Refused {
			t.Errorf("%s: %v", c.Name, err)
			continue
		}
		var keys []string
		for _, k := range set.Keys {
			keys = append(keys, k.KID()+" "+string(k.Alg()))
		}
		if !slices.Equal(keys, c.Keys) || set.Version != c.Version {
			t.Errorf("%s: %q, version %d", c.Name, keys, set.Version)
		}
	}
}

func TestDocuments(t *testing.T) {
	var file struct {
		About     string
		Good, Bad []string
		Integers  struct {
			Good map[string]string
			Bad  []string
		}
	}
	load(t, "json.json", &file)
	// A document within an array is read by the same rules, one level down.
	valid := func(text string) bool {
		if strings.HasPrefix(strings.TrimLeft(text, " \t\r\n"), "{") {
			return strictjson.Object([]byte(text), nil) == nil
		}
		return strictjson.Array([]byte(text), func([]byte) error { return nil }) == nil
	}
	for _, text := range file.Good {
		if !valid(text) {
			t.Errorf("%q is refused", text)
		}
	}
	for _, text := range file.Bad {
		if valid(text) {
			t.Errorf("%q is taken", text)
		}
	}
	for text, want := range file.Integers.Good {
		if n, err := strictjson.Int([]byte(text)); err != nil || strconv.FormatInt(n, 10) != want {
			t.Errorf("%s: %d, %v", text, n, err)
		}
	}
	for _, text := range file.Integers.Bad {
		if n, err := strictjson.Int([]byte(text)); err == nil {
			t.Errorf("%s is taken for %d", text, n)
		}
	}
}

func TestTables(t *testing.T) {
	type question struct {
		SID      string `json:"sid"`
		Subject  string `json:"sub"`
		JTI      string `json:"jti"`
		ClientID string `json:"client_id"`
		Epoch    int64  `json:"epoch"`
	}
	var file struct {
		About string
		Now   int64
		Cases []struct {
			Name  string
			Steps []struct {
				At    int64
				Apply json.RawMessage
				Ask   *question
				Key   string
				Want  string
				Size  *int
			}
		}
	}
	load(t, "revocations.json", &file)
	for _, c := range file.Cases {
		now := time.Unix(file.Now, 0)
		table := revoked.NewTable(func() time.Time { return now })
		for i, s := range c.Steps {
			now = time.Unix(file.Now+s.At, 0)
			switch {
			case s.Apply != nil:
				entries, _, err := revoked.Decode(s.Apply)
				if err != nil {
					t.Fatal(err)
				}
				table.Apply(entries...)
			case s.Ask != nil:
				q := revoked.Query{SessionID: s.Ask.SID, Subject: s.Ask.Subject, TokenID: s.Ask.JTI, ClientID: s.Ask.ClientID, Epoch: s.Ask.Epoch}
				if got := [...]string{"none", "stale", "revoked"}[table.Check(q)]; got != s.Want {
					t.Errorf("%s: step %d: %s, want %s", c.Name, i, got, s.Want)
				}
			case s.Key != "":
				if got := table.KeyRevoked(s.Key); got != (s.Want == "revoked") {
					t.Errorf("%s: step %d: %v, want %s", c.Name, i, got, s.Want)
				}
			case s.Size != nil:
				if got := table.Len(); got != *s.Size {
					t.Errorf("%s: step %d: %d rows, want %d", c.Name, i, got, *s.Size)
				}
			}
		}
	}
}

func TestStreams(t *testing.T) {
	var file struct {
		About string
		Cases []struct {
			Name, Stream, Base64 string
			Frames               []map[string]any
			Fails                bool
		}
	}
	load(t, "feed.json", &file)
	for _, c := range file.Cases {
		stream := []byte(c.Stream)
		if c.Base64 != "" {
			var err error
			if stream, err = base64.RawURLEncoding.DecodeString(c.Base64); err != nil {
				t.Fatal(err)
			}
		}
		for how, reader := range map[string]io.Reader{
			"whole": bytes.NewReader(stream), "in halves": iotest.HalfReader(bytes.NewReader(stream)), "byte by byte": iotest.OneByteReader(bytes.NewReader(stream)),
		} {
			frames, err := frames(reader)
			if (err != nil) != c.Fails {
				t.Errorf("%s, %s: %v", c.Name, how, err)
			}
			if !same(frames, c.Frames) {
				t.Errorf("%s, %s: %.500v, want %.500v", c.Name, how, frames, c.Frames)
			}
		}
	}
}

func frames(from io.Reader) ([]map[string]any, error) {
	all := []map[string]any{}
	for r := feed.NewReader(from); ; {
		f, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		out := map[string]any{"kind": f.Kind.String()}
		if f.Skipped > 0 {
			out["skipped"] = f.Skipped
		}
		if f.Kind == feed.Heartbeat {
			out["age_ms"], out["now"], out["keys"], out["node"] = f.Beat.AgeMS, f.Beat.Now, f.Beat.Keys, f.Beat.Node
		} else {
			out["entries"] = json.RawMessage(revoked.Encode(f.Entries))
			if f.HasPos {
				out["position"] = f.Pos.String()
			}
		}
		all = append(all, out)
	}
}

func TestRequests(t *testing.T) {
	var file struct {
		head
		Cases []struct {
			Name    string            `json:"name"`
			Method  string            `json:"method"`
			Headers [][2]string       `json:"headers"`
			Cookie  bool              `json:"cookie"`
			Option  bool              `json:"optional"`
			Trusted []string          `json:"trusted_origins"`
			Rules   *ruleSet          `json:"rules"`
			Live    string            `json:"live"`
			Status  int               `json:"status"`
			Sub     string            `json:"sub"`
			Answer  map[string]string `json:"answer"`
			Body    map[string]any    `json:"body"`
		} `json:"cases"`
	}
	load(t, "requests.json", &file)
	for _, c := range file.Cases {
		t.Run(c.Name, func(t *testing.T) {
			v := file.verifier(t, verify.Config{Audience: file.Audience, TrustedOrigins: c.Trusted}, file.Now, 3600, nil, c.Live)
			rules := c.Rules.rules()
			if c.Cookie {
				rules = append(rules, verify.Cookie())
			}
			protect := v.Require
			if c.Option {
				protect = v.Optional
			}
			handler := protect(rules...)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if claims, ok := verify.FromContext(r.Context()); ok {
					fmt.Fprint(w, claims.Subject)
				}
			}))
			r := httptest.NewRequest(map[bool]string{true: "GET", false: c.Method}[c.Method == ""], "/", nil)
			for _, h := range c.Headers {
				if h[0] == "Host" {
					r.Host = h[1]
				} else {
					r.Header.Add(h[0], h[1])
				}
			}
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, r)
			if w.Code != c.Status {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			if c.Status == http.StatusOK {
				if w.Body.String() != c.Sub {
					t.Errorf("the handler sees %q", w.Body)
				}
				return
			}
			for name, want := range c.Answer {
				if got := w.Header().Get(name); got != want {
					t.Errorf("%s: %s, want %s", name, got, want)
				}
			}
			if c.Answer["WWW-Authenticate"] == "" && w.Header().Get("WWW-Authenticate") != "" {
				t.Error("an unexpected challenge")
			}
			if !same(json.RawMessage(w.Body.Bytes()), c.Body) {
				t.Errorf("%s, want %v", w.Body, c.Body)
			}
		})
	}
}
