package verify

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/internal/jws"
	"github.com/counterfoil/counterfoil/internal/revoked"
)

func TestGoodToken(t *testing.T) {
	v := newLocal(t, nil)
	for _, key := range []*signingKey{v.key, v.eddsa} {
		c, err := v.Check(t.Context(), key.mint(t, goodClaims(start).with(claims{
			"roles": []string{"admin", "staff"}, "scope": "orders:read orders:write", "plan": "gold",
		})))
		if err != nil {
			t.Fatal(err)
		}
		if c.Issuer != testIssuer || c.Subject != "user-1" || c.Audience != testAudience || c.ClientID != "default" ||
			c.SessionID != "4fzyo82mvyr9z0KfJ2W8QhpD" || c.ID != "t1" || c.Epoch != 7 ||
			!c.IssuedAt.Equal(start) || !c.ExpiresAt.Equal(start.Add(time.Minute)) || !c.AuthTime.Equal(start.Add(-2*time.Minute)) ||
			len(c.Methods) != 1 || c.Methods[0] != "pwd" {
			t.Errorf("%+v", c)
		}
		if !c.HasRole("admin") || c.HasRole("adm") || !c.HasScope("orders:write") || c.HasScope("orders") {
			t.Errorf("roles %v, scope %v", c.Roles, c.Scope)
		}
		var mine struct {
			Plan string `json:"plan"`
			Sub  string `json:"sub"`
		}
		if err := c.Decode(&mine); err != nil || mine.Plan != "gold" || mine.Sub != "user-1" {
			t.Errorf("%+v, %v", mine, err)
		}
	}
}

func TestDecodeRefusesNamesThatDifferInCaseOnly(t *testing.T) {
	v := newLocal(t, nil)
	c, err := v.Check(t.Context(), v.key.mint(t, goodClaims(start).with(claims{"plan": "free", "PLAN": "gold"})))
	if err != nil {
		t.Fatal(err)
	}
	var mine struct{ Plan string }
	if err := c.Decode(&mine); err == nil || mine.Plan != "" {
		t.Errorf("%+v, %v", mine, err)
	}
	if err := new(Claims).Decode(&mine); err == nil {
		t.Error("claims without a token were decoded")
	}
}

// Every row changes one claim of a good token.
func TestClaims(t *testing.T) {
	v := newLocal(t, nil)
	at := start.Unix()
	big := json.RawMessage("99999999999999999999")
	raw := func(s string) json.RawMessage { return json.RawMessage(s) }
	for _, tc := range []struct {
		sec    string
		change claims
		want   error // nil: good
	}{
		{"SEC-63", claims{"iss": nil}, ErrTokenInvalid},
		{"SEC-63", claims{"iss": testIssuer + "/"}, ErrTokenInvalid},
		{"SEC-63", claims{"iss": "HTTPS://APP.EXAMPLE"}, ErrTokenInvalid},
		{"SEC-63", claims{"iss": "https://app.exampl"}, ErrTokenInvalid},
		{"SEC-63", claims{"iss": []string{testIssuer}}, ErrTokenInvalid},
		{"SEC-63", claims{"iss": 5}, ErrTokenInvalid},

		{"SEC-64", claims{"aud": nil}, ErrTokenInvalid},
		{"SEC-64", claims{"aud": []string{testAudience}}, nil},
		{"SEC-64", claims{"aud": []string{testAudience, testAudience}}, ErrTokenInvalid},
		{"SEC-64", claims{"aud": []string{testAudience, "billing"}}, ErrTokenInvalid},
		{"SEC-64", claims{"aud": []string{}}, ErrTokenInvalid},
		{"SEC-64", claims{"aud": []any{5}}, ErrTokenInvalid},
		{"SEC-64", claims{"aud": raw(`null`)}, ErrTokenInvalid},
		{"SEC-64", claims{"aud": map[string]string{"orders": "orders"}}, ErrTokenInvalid},
		{"SEC-64", claims{"aud": "billing"}, ErrAudienceMismatch},
		{"SEC-64", claims{"aud": "Orders"}, ErrAudienceMismatch},
		{"SEC-64", claims{"aud": "orders2"}, ErrAudienceMismatch},

		{"SEC-65", claims{"exp": nil}, ErrTokenInvalid},
		{"SEC-65", claims{"exp": fmt.Sprint(at + 60)}, ErrTokenInvalid},
		{"SEC-65", claims{"exp": raw(`null`)}, ErrTokenInvalid},
		{"SEC-65", claims{"exp": big}, ErrTokenInvalid},
		{"SEC-65", claims{"exp": raw("1e12")}, ErrTokenInvalid},
		{"SEC-65", claims{"exp": raw(fmt.Sprintf("%d.0", at+60))}, ErrTokenInvalid},
		{"SEC-65", claims{"exp": int64(lastInstant) + 1}, ErrTokenInvalid},
		{"SEC-65", claims{"exp": -at}, ErrTokenInvalid},
		{"SEC-65", claims{"exp": at}, ErrTokenInvalid},
		{"SEC-65", claims{"iat": nil}, ErrTokenInvalid},
		{"SEC-65", claims{"iat": 0}, ErrTokenInvalid},
		{"SEC-65", claims{"iat": "now"}, ErrTokenInvalid},
		{"SEC-65", claims{"nbf": "now"}, ErrTokenInvalid},
		{"SEC-65", claims{"nbf": at}, nil},
		{"SEC-65", claims{"auth_time": "then"}, ErrTokenInvalid},
		{"SEC-65", claims{"auth_time": nil}, nil},

		{"SEC-66", claims{"exp": at + 300}, nil},
		{"SEC-66", claims{"exp": at + 301}, ErrTokenInvalid},

		{"SEC-67", claims{"sub": nil}, ErrTokenInvalid},
		{"SEC-67", claims{"sub": ""}, ErrTokenInvalid},
		{"SEC-67", claims{"sub": 17}, ErrTokenInvalid},
		{"SEC-67", claims{"sid": nil}, ErrTokenInvalid}, // a machine's token
		{"SEC-67", claims{"sid": ""}, ErrTokenInvalid},
		{"SEC-67", claims{"sid": raw("true")}, ErrTokenInvalid},
		{"SEC-67", claims{"jti": nil}, ErrTokenInvalid},
		{"SEC-67", claims{"jti": []string{"t1"}}, ErrTokenInvalid},
		{"client_id", claims{"client_id": nil}, ErrTokenInvalid},
		{"epoch", claims{"epoch": nil}, ErrTokenInvalid},
		{"epoch", claims{"epoch": "7"}, ErrTokenInvalid},
		{"epoch", claims{"epoch": -1}, ErrTokenInvalid},
		{"epoch", claims{"epoch": 0}, nil},

		{"SEC-60", claims{"SUB": "evil"}, ErrTokenInvalid},
		{"SEC-60", claims{"\u017Fub": "evil"}, ErrTokenInvalid},
		{"SEC-60", claims{"ROLES": []string{"admin"}}, ErrTokenInvalid},
		{"SEC-60", claims{"role\u017F": []string{"admin"}}, ErrTokenInvalid},
		{"SEC-60", claims{"Client_Id": "evil"}, ErrTokenInvalid},

		{"SEC-70", claims{"cnf": map[string]string{"jkt": "x"}}, ErrTokenInvalid},
		{"types", claims{"roles": "admin"}, ErrTokenInvalid},
		{"types", claims{"roles": []any{"admin", 1}}, ErrTokenInvalid},
		{"types", claims{"scope": []string{"a"}}, ErrTokenInvalid},
		{"types", claims{"scope": "a  b"}, ErrTokenInvalid},
		{"types", claims{"scope": "a\tb"}, ErrTokenInvalid},
		{"types", claims{"amr": "pwd"}, ErrTokenInvalid},
		{"others", claims{"plan": map[string]any{"a": []int{1}}}, nil},
	} {
		change, _ := json.Marshal(tc.change)
		t.Run(tc.sec+" "+string(change), func(t *testing.T) {
			c, err := v.Check(t.Context(), v.key.mint(t, goodClaims(start).with(tc.change)))
			if !errors.Is(err, tc.want) || (err == nil) != (c != nil) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

func TestSEC59PayloadsThatAreNotOneJSONObject(t *testing.T) {
	v := newLocal(t, nil)
	b, _ := json.Marshal(goodClaims(start))
	good := string(b)
	for _, payload := range []string{
		`[` + good + `]`, `"x"`, `{}`, `null`, good + good, good + "x", "\ufeff" + good,
		strings.Replace(good, `"sub":"user-1"`, `"sub":"user-1","sub":"user-2"`, 1),
		strings.Replace(good, `"sub":"user-1"`, `"sub":"user-1","\u0073ub":"user-2"`, 1),
		strings.Replace(good, `"user-1"`, `"\ud800"`, 1),
		strings.Replace(good, `"user-1"`, "\"\xff\"", 1),
		strings.Replace(good, `{`, `{"x":{"a":1,"a":2},`, 1),
		strings.Replace(good, `{`, `{"x":`+strings.Repeat("[", 20)+strings.Repeat("]", 20)+`,`, 1),
	} {
		if _, err := v.Check(t.Context(), v.key.sign(t, TokenType, payload)); !errors.Is(err, ErrTokenInvalid) {
			t.Errorf("%s: %v", payload, err)
		}
	}
}

func TestSEC62TokenTypes(t *testing.T) {
	v := newLocal(t, nil)
	b, _ := json.Marshal(goodClaims(start))
	for _, typ := range []string{"JWT", "jwt", "secevent+jwt", "dpop+jwt", "AT+JWT", "application/at+jwt", "at+jwt "} {
		if _, err := v.Check(t.Context(), v.key.sign(t, typ, string(b))); !errors.Is(err, ErrTokenInvalid) {
			t.Errorf("%s: %v", typ, err)
		}
	}
}

func TestSEC41SEC42AlgorithmsAndKeys(t *testing.T) {
	v := newLocal(t, nil)
	good := goodClaims(start)
	other := newKey(t, "k1", jws.ES256)    // the right kid, another key
	switched := newKey(t, "k1", jws.EdDSA) // the right kid, another algorithm
	unknown := newKey(t, "k9", jws.ES256)  // nobody knows it
	for name, key := range map[string]*signingKey{"other": other, "switched": switched, "unknown": unknown} {
		if _, err := v.Check(t.Context(), key.mint(t, good)); !errors.Is(err, ErrTokenInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, bad := range []string{"", "x", "a.b.c", "..", "cf_st_abc", v.key.mint(t, good) + " ", strings.Repeat(".", 1_000_000)} {
		if _, err := v.Check(t.Context(), bad); !errors.Is(err, ErrTokenInvalid) {
			t.Errorf("%.20q: %v", bad, err)
		}
	}
	narrow := newLocal(t, func(c *Config, _ *Local) { c.Algorithms = []string{"EdDSA"} })
	if _, err := narrow.Check(t.Context(), narrow.eddsa.mint(t, good)); err != nil {
		t.Error(err)
	}
	if _, err := narrow.Check(t.Context(), narrow.key.mint(t, good)); !errors.Is(err, ErrTokenInvalid) {
		t.Errorf("narrowed: %v", err)
	}
}

// The issuer is looked at before any key is, so that a key can only ever
// verify tokens of its own issuer.
func TestSEC48IssuerBeforeKey(t *testing.T) {
	asked := false
	v := newLocal(t, func(_ *Config, l *Local) {
		find := l.Key
		l.Key = func(kid string) (*jws.PublicKey, bool) { asked = true; return find(kid) }
	})
	token := v.key.mint(t, goodClaims(start).with(claims{"iss": "https://other.example"}))
	if _, err := v.Check(t.Context(), token); !errors.Is(err, ErrTokenInvalid) || asked {
		t.Errorf("%v, key looked up: %v", err, asked)
	}
}

func TestSEC66BoundariesOfTime(t *testing.T) {
	v := newLocal(t, nil)
	token := v.key.mint(t, goodClaims(start))
	early := v.key.mint(t, goodClaims(start).with(claims{"nbf": start.Unix() + 30}))
	for _, tc := range []struct {
		token string
		at    time.Duration
		want  error
	}{
		{token, 60 * time.Second, nil},
		{token, 64 * time.Second, nil},
		{token, 65*time.Second - 1, nil},
		{token, 65 * time.Second, ErrTokenExpired},
		{token, 66 * time.Second, ErrTokenExpired},
		{token, -4 * time.Second, nil},
		{token, -5 * time.Second, nil},
		{token, -5*time.Second - 1, ErrTokenInvalid},
		{token, -6 * time.Second, ErrTokenInvalid},
		{early, 24 * time.Second, ErrTokenInvalid},
		{early, 25 * time.Second, nil},
		{early, 26 * time.Second, nil},
	} {
		v.clock.set(start.Add(tc.at))
		if _, err := v.Check(t.Context(), tc.token); !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) {
			t.Errorf("at %v: %v, want %v", tc.at, err, tc.want)
		}
	}
}

func TestRevocations(t *testing.T) {
	until := start.Add(time.Hour)
	for _, tc := range []struct {
		name  string
		entry Revocation
		want  error
	}{
		{"session", Revocation{Kind: RevokeSession, ID: "4fzyo82mvyr9z0KfJ2W8QhpD", Until: until}, ErrTokenRevoked},
		{"token", Revocation{Kind: RevokeToken, ID: "t1", Until: until}, ErrTokenRevoked},
		{"SEC-73 key", Revocation{Kind: RevokeKey, ID: "k1"}, ErrTokenInvalid},
		{"client", Revocation{Kind: RevokeClient, ID: "default", RevokedBelow: 8, Until: until}, ErrTokenRevoked},
		{"SEC-28 everywhere", Revocation{Kind: RevokeSubject, ID: "user-1", StaleBelow: 8, RevokedBelow: 8, Until: until}, ErrTokenRevoked},
		{"SEC-68 rights", Revocation{Kind: RevokeSubject, ID: "user-1", StaleBelow: 8, Until: until}, ErrTokenStale},
		{"kept", Revocation{Kind: RevokeSubject, ID: "user-1", StaleBelow: 8, RevokedBelow: 8, Except: "4fzyo82mvyr9z0KfJ2W8QhpD", Until: until}, ErrTokenStale},
		{"minted after", Revocation{Kind: RevokeSubject, ID: "user-1", StaleBelow: 7, RevokedBelow: 7, Until: until}, nil},
		{"another's", Revocation{Kind: RevokeSubject, ID: "user-2", StaleBelow: 9, RevokedBelow: 9, Until: until}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := newLocal(t, nil)
			token := v.key.mint(t, goodClaims(start))
			if _, err := v.Check(t.Context(), token); err != nil {
				t.Fatal(err)
			}
			v.table.Apply(tc.entry)
			if _, err := v.Check(t.Context(), token); !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

// SEC-33, SEC-53: a revocation goes by what a token says, not by its text.
func TestSEC33AnotherTokenOfTheSameSessionSharesItsFate(t *testing.T) {
	v := newLocal(t, nil)
	c := goodClaims(start)
	first, second := v.key.mint(t, c), v.key.mint(t, c) // ECDSA signs differently each time
	if first == second {
		t.Fatal("want two spellings")
	}
	v.table.Apply(Revocation{Kind: RevokeSession, ID: c["sid"].(string), Until: start.Add(time.Hour)})
	for _, token := range []string{first, second} {
		if _, err := v.Check(t.Context(), token); !errors.Is(err, ErrTokenRevoked) {
			t.Error(err)
		}
	}
}

// SEC-125: until the signature has verified there is one answer, to the byte.
func TestSEC125OneAnswerBeforeTheSignature(t *testing.T) {
	v := newLocal(t, nil)
	good := goodClaims(start)
	forger := newKey(t, "k1", jws.ES256)
	v.table.Apply(revoked.Entry{Kind: revoked.Key, ID: "k2"})
	tokens := map[string]string{
		"garbage":             "garbage",
		"wrong key":           forger.mint(t, good),
		"wrong key, expired":  forger.mint(t, goodClaims(start.Add(-time.Hour))),
		"wrong key, audience": forger.mint(t, good.with(claims{"aud": "billing"})),
		"unknown kid":         newKey(t, "k9", jws.ES256).mint(t, good),
		"revoked kid":         v.eddsa.mint(t, good),
		"wrong issuer":        v.key.mint(t, good.with(claims{"iss": "x"})),
		"machine":             v.key.mint(t, good.with(claims{"sid": nil})),
	}
	want := ""
	for name, token := range tokens {
		_, err := v.Check(t.Context(), token)
		w := httptest.NewRecorder()
		WriteError(w, httptest.NewRequest("GET", "/", nil), err)
		got := fmt.Sprint(w.Code, w.Header(), w.Body)
		if want == "" {
			want = got
		}
		if got != want || !strings.Contains(got, CodeTokenInvalid) {
			t.Errorf("%s: %s\nwant %s", name, got, want)
		}
	}
}

func TestExchangeTakesExpiredAndStaleTokens(t *testing.T) {
	v := newLocal(t, func(_ *Config, l *Local) { l.ExchangeFor = 10 * time.Minute })
	token := v.key.mint(t, goodClaims(start))
	v.table.Apply(Revocation{Kind: RevokeSubject, ID: "user-1", StaleBelow: 8, Until: start.Add(time.Hour)})
	v.clock.advance(11*time.Minute + leeway - 1)
	if _, err := v.Check(t.Context(), token); err != nil {
		t.Error(err)
	}
	v.clock.advance(1)
	if _, err := v.Check(t.Context(), token); !errors.Is(err, ErrTokenExpired) {
		t.Error(err)
	}
	v.clock.set(start)
	v.table.Apply(Revocation{Kind: RevokeSession, ID: "4fzyo82mvyr9z0KfJ2W8QhpD", Until: start.Add(time.Hour)})
	if _, err := v.Check(t.Context(), token); !errors.Is(err, ErrTokenRevoked) {
		t.Error(err)
	}
}

func TestAcceptAnyAudience(t *testing.T) {
	v := newLocal(t, func(c *Config, _ *Local) { c.Audience, c.AcceptAnyAudience = "", true })
	c, err := v.Check(t.Context(), v.key.mint(t, goodClaims(start).with(claims{"aud": "billing"})))
	if err != nil || c.Audience != "billing" {
		t.Errorf("%+v, %v", c, err)
	}
}

func FuzzClaims(f *testing.F) {
	b, _ := json.Marshal(goodClaims(start).with(claims{"nbf": 1, "scope": "a b", "roles": []string{"r"}, "plan": nil}))
	f.Add(b)
	f.Add([]byte(`{"iss":"a","SUB":"b"}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		c, err := parseClaims(payload)
		if err != nil {
			return
		}
		// What we read is what encoding/json reads, though it folds names.
		var std struct {
			Iss, Sub, Sid, Jti string
			ClientID           string `json:"client_id"`
			Iat, Exp, Epoch    int64
			Roles              []string
		}
		if err := json.Unmarshal(payload, &std); err != nil {
			t.Fatalf("%s: %v", payload, err)
		}
		if std.Iss != c.Issuer || std.Sub != c.Subject || std.Sid != c.SessionID || std.Jti != c.ID || std.ClientID != c.ClientID ||
			std.Iat != c.IssuedAt.Unix() || std.Exp != c.ExpiresAt.Unix() || std.Epoch != c.Epoch || fmt.Sprint(std.Roles) != fmt.Sprint(c.Roles) {
			t.Fatalf("%s\n%+v\n%+v", payload, c, std)
		}
		if c.Issuer == "" || c.Subject == "" || c.Audience == "" || c.SessionID == "" || c.ID == "" || c.ClientID == "" || c.Epoch < 0 {
			t.Fatalf("%s\n%+v", payload, c)
		}
	})
}
