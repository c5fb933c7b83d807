package oracle

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
	"github.com/lestrrat-go/jwx/v3/jwk"
	jwxjwt "github.com/lestrrat-go/jwx/v3/jwt"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/httpapi"
	"github.com/counterfoil/counterfoil/memstore"
	"github.com/counterfoil/counterfoil/verify"
)

const jwksPath = "/.well-known/jwks.json"

// ours is a token that a real authority has made.
type ours struct {
	Name  string `json:"name"`
	Alg   string `json:"alg"`
	Token string `json:"token"`
}

// startAuthority serves a real authority's keys, and returns the address of
// the key set with a good token and one whose payload was changed.
func startAuthority(t *testing.T, alg string) (jwksURI string, tokens []ours) {
	t.Helper()
	auth, err := counterfoil.New(t.Context(), memstore.New(), counterfoil.Config{
		Issuer: wantIssuer, Audiences: []string{wantAudience}, Algorithm: alg,
		Seal: counterfoil.SealSecrets(make([]byte, 32)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { auth.Close() })
	server := httptest.NewServer(httpapi.WellKnown(auth))
	t.Cleanup(server.Close)
	grant, err := auth.StartSession(t.Context(), counterfoil.SignIn{
		Subject: "u1", Methods: []string{"pwd"}, Roles: []string{"admin"}, Extra: map[string]any{"plan": "gold"},
	})
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(grant.AccessToken, ".")
	payload, err := base64url.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	parts[1] = base64url.EncodeToString(bytes.Replace(payload, []byte(`"u1"`), []byte(`"u2"`), 1))
	return server.URL + jwksPath, []ours{{"good", alg, grant.AccessToken}, {"tampered", alg, strings.Join(parts, ".")}}
}

func get(t *testing.T, url string) []byte {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatal(res.Status, err)
	}
	return body
}

// General libraries verify our tokens with the keys that we publish, and
// notice when one was changed.
func TestOthersReadOurs(t *testing.T) {
	for _, alg := range []string{"ES256", "EdDSA"} {
		t.Run(alg, func(t *testing.T) {
			uri, tokens := startAuthority(t, alg)
			published := get(t, uri)
			readers := map[string]func(token string) (string, error){
				"golang-jwt": func(token string) (string, error) { return readGolangJWT(published, alg, token) },
				"jwx":        func(token string) (string, error) { return readJWX(published, token) },
			}
			for name, read := range readers {
				for _, token := range tokens {
					subject, err := read(token.Token)
					judge(t, name, token.Name, subject, err)
				}
			}
		})
		t.Run(alg+" in Node", func(t *testing.T) {
			uri, tokens := startAuthority(t, alg)
			var answers []struct{ Library, Name, Subject, Error string }
			node(t, map[string]any{"do": "read", "jwks_uri": uri, "issuer": wantIssuer, "audience": wantAudience, "tokens": tokens}, &answers)
			if want := map[string]int{"ES256": 4, "EdDSA": 2}[alg]; len(answers) != want {
				t.Fatalf("%d answers, want %d: %v", len(answers), want, answers)
			}
			for _, a := range answers {
				var err error
				if a.Error != "" {
					err = errors.New(a.Error)
				}
				judge(t, a.Library, a.Name, a.Subject, err)
			}
		})
	}
}

func judge(t *testing.T, library, name, subject string, err error) {
	t.Helper()
	switch {
	case name == "good" && (err != nil || subject != "u1"):
		t.Errorf("%s reads our token as %q, %v", library, subject, err)
	case name != "good" && err == nil:
		t.Errorf("%s takes the %s token: the test proves nothing", library, name)
	}
}

func readGolangJWT(published []byte, alg, token string) (string, error) {
	var set jose.JSONWebKeySet // golang-jwt leaves key sets to others
	if err := json.Unmarshal(published, &set); err != nil {
		return "", err
	}
	var claims jwt.RegisteredClaims
	_, err := jwt.NewParser(jwt.WithValidMethods([]string{alg}), jwt.WithIssuer(wantIssuer), jwt.WithAudience(wantAudience), jwt.WithExpirationRequired()).
		ParseWithClaims(token, &claims, func(t *jwt.Token) (any, error) {
			kid, _ := t.Header["kid"].(string)
			keys := set.Key(kid)
			if len(keys) != 1 || t.Header["typ"] != verify.TokenType {
				return nil, errors.New("another kid or typ")
			}
			return keys[0].Key, nil
		})
	return claims.Subject, err
}

func readJWX(published []byte, token string) (string, error) {
	set, err := jwk.Parse(published)
	if err != nil {
		return "", err
	}
	claims, err := jwxjwt.ParseString(token, jwxjwt.WithKeySet(set), jwxjwt.WithIssuer(wantIssuer), jwxjwt.WithAudience(wantAudience))
	if err != nil {
		return "", err
	}
	subject, _ := claims.Subject()
	return subject, nil
}

// foreign is a token for another library to make.
type foreign struct {
	Name   string         `json:"name"`
	Header map[string]any `json:"header"`
	Claims map[string]any `json:"claims"`
	Key    string         `json:"key"` // ec, ed: the issuer's; other; rsa; secret: the public key as HMAC secret
	want   error
}

func (f foreign) header(name string, value any) foreign {
	f.Header = withValue(f.Header, name, value)
	return f
}

func (f foreign) claim(name string, value any) foreign {
	f.Claims = withValue(f.Claims, name, value)
	return f
}

func (f foreign) refused(name string, want error) foreign {
	f.Name, f.want = name, want
	return f
}

func (f foreign) signedBy(key string) foreign {
	f.Key = key
	return f
}

func withValue(in map[string]any, name string, value any) map[string]any {
	out := map[string]any{}
	for k, v := range in {
		out[k] = v
	}
	if out[name] = value; value == nil {
		delete(out, name)
	}
	return out
}

func foreigners() []foreign {
	now := time.Now().Unix()
	good := foreign{
		Name: "good", Key: "ec",
		Header: map[string]any{"alg": "ES256", "kid": "ec", "typ": "at+jwt"},
		Claims: map[string]any{
			"iss": wantIssuer, "sub": "u1", "aud": wantAudience, "client_id": "default", "sid": "3fZk81Yc0aHq72LmN4pRsT9v",
			"iat": now, "exp": now + 60, "jti": "j1", "auth_time": now, "amr": []string{"pwd"}, "epoch": 1763700000000001,
		},
	}
	ed := good.header("alg", "EdDSA").header("kid", "ed").signedBy("ed")
	ed.Name = "good, EdDSA"
	return []foreign{
		good, ed,
		good.header("alg", "HS256").signedBy("secret").refused("alg HS256 with the public key as secret", verify.ErrTokenInvalid),
		good.header("alg", "none").signedBy("").refused("alg none", verify.ErrTokenInvalid),
		good.header("alg", "RS256").signedBy("rsa").refused("alg RS256", verify.ErrTokenInvalid),
		ed.header("kid", "ec").refused("alg EdDSA under the kid of another algorithm", verify.ErrTokenInvalid),
		good.header("kid", "ed").refused("alg ES256 under the kid of another algorithm", verify.ErrTokenInvalid),
		good.signedBy("other").refused("the right kid, another key", verify.ErrTokenInvalid),
		good.header("kid", "other").signedBy("other").refused("an unknown kid", verify.ErrTokenInvalid),
		good.header("kid", nil).refused("no kid", verify.ErrTokenInvalid),
		good.header("typ", "JWT").refused("typ JWT", verify.ErrTokenInvalid),
		good.header("typ", "id_token+jwt").refused("another typ", verify.ErrTokenInvalid),
		good.claim("iss", "https://evil.example").refused("another iss", verify.ErrTokenInvalid),
		good.claim("iss", nil).refused("no iss", verify.ErrTokenInvalid),
		good.claim("aud", "billing").refused("another aud", verify.ErrAudienceMismatch),
		good.claim("aud", []string{wantAudience, "billing"}).refused("two aud", verify.ErrTokenInvalid),
		good.claim("aud", nil).refused("no aud", verify.ErrTokenInvalid),
		good.claim("iat", now-600).claim("exp", now-540).refused("expired", verify.ErrTokenExpired),
		good.claim("exp", nil).refused("no exp", verify.ErrTokenInvalid),
		good.claim("exp", now+86400).refused("lives for a day", verify.ErrTokenInvalid),
		good.claim("sid", nil).refused("no sid", verify.ErrTokenInvalid),
	}
}

// theirs is an issuer that is none of ours: keys, key set and discovery are
// made by a general library. verifier is a remote one that trusts it.
type theirs struct {
	keys      map[string]any
	publicPEM []byte
	verifier  *verify.Verifier
}

func newTheirs(t *testing.T) *theirs {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	must(err)
	block, _ := pem.Decode(rsaPEM)
	rsa, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	must(err)
	der, err := x509.MarshalPKIXPublicKey(ec.Public())
	must(err)
	it := &theirs{
		keys:      map[string]any{"ec": ec, "ed": ed, "other": other, "rsa": rsa},
		publicPEM: pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}),
	}
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
		{Key: ec.Public(), KeyID: "ec", Algorithm: "ES256", Use: "sig"},
		{Key: ed.Public(), KeyID: "ed", Algorithm: "EdDSA", Use: "sig"},
	}})
	must(err)
	mux := http.NewServeMux()
	serve := func(path, body string) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, body)
		})
	}
	serve(jwksPath, string(set))
	serve("/.well-known/oauth-authorization-server", fmt.Sprintf(`{"issuer":%q,"cf_max_token_lifetime":300}`, wantIssuer))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	it.verifier, err = verify.New(t.Context(), verify.Config{Issuer: wantIssuer, Audience: wantAudience, Authority: server.URL})
	must(err)
	t.Cleanup(func() { it.verifier.Close() })
	return it
}

// check says whether the verifier does with a token what the case wants.
func (it *theirs) check(t *testing.T, library string, f foreign, token string) {
	t.Helper()
	claims, err := it.verifier.Check(context.Background(), token)
	switch {
	case f.want == nil && (err != nil || claims.Subject != "u1"):
		t.Errorf("%s, %s: refused: %v", library, f.Name, err)
	case f.want != nil && !errors.Is(err, f.want):
		t.Errorf("%s, %s: %v, want %v", library, f.Name, err, f.want)
	}
}

// Tokens of general libraries are taken when all is right, and refused for
// each single thing that is wrong (SEC-41 to SEC-43, SEC-47, SEC-62 to SEC-67).
func TestWeReadOthers(t *testing.T) {
	t.Run("golang-jwt", func(t *testing.T) {
		it := newTheirs(t)
		for _, f := range foreigners() {
			method, key := jwt.GetSigningMethod(f.Header["alg"].(string)), it.keys[f.Key]
			switch f.Key {
			case "":
				key = jwt.UnsafeAllowNoneSignatureType
			case "secret":
				key = it.publicPEM
			}
			made := &jwt.Token{Header: f.Header, Claims: jwt.MapClaims(f.Claims), Method: method}
			token, err := made.SignedString(key)
			if err != nil {
				t.Fatal(f.Name, err)
			}
			it.check(t, "golang-jwt", f, token)
		}
	})
	t.Run("jose and jsonwebtoken", func(t *testing.T) {
		it := newTheirs(t)
		keys := map[string]jose.JSONWebKey{}
		for name, key := range it.keys {
			keys[name] = jose.JSONWebKey{Key: key}
		}
		cases := foreigners()
		var tokens []struct{ Library, Name, Token string }
		node(t, map[string]any{"do": "make", "keys": keys, "public_pem": string(it.publicPEM), "cases": cases}, &tokens)
		made := map[string]int{}
		for _, token := range tokens {
			i := slices.IndexFunc(cases, func(f foreign) bool { return f.Name == token.Name })
			it.check(t, token.Library, cases[i], token.Token)
			made[token.Library]++
		}
		if made["jose"] != len(cases) || made["jsonwebtoken"] != len(cases)-2 {
			t.Errorf("made %v of %d cases; jsonwebtoken lacks the two with EdDSA only", made, len(cases))
		}
	})
}

// node runs the script of the Node libraries with one ask.
func node(t *testing.T, ask, answer any) {
	t.Helper()
	const modules = "COUNTERFOIL_TEST_NODE_MODULES"
	if os.Getenv(modules) == "" {
		if os.Getenv("COUNTERFOIL_TEST_ALL") == "1" {
			t.Fatalf("%s is not set", modules)
		}
		t.Skipf("%s is not set: run make test", modules)
	}
	input, err := json.Marshal(ask)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "node", "testdata/interop.cjs")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("node: %v\n%s", err, stderr.String())
	}
	if err := json.Unmarshal(stdout.Bytes(), answer); err != nil {
		t.Fatalf("node said %q: %v", stdout.String(), err)
	}
}
