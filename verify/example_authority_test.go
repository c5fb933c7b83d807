package verify_test

import (
	"crypto/ed25519"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/counterfoil/counterfoil/internal/feed"
	"github.com/counterfoil/counterfoil/internal/jwk"
	"github.com/counterfoil/counterfoil/internal/jws"
	"github.com/counterfoil/counterfoil/verify"
)

// startAuthority serves what a verifier asks an authority for, and returns a
// token of user-1 for the audience orders.
func startAuthority() (server *httptest.Server, token string) {
	public, private, err := ed25519.GenerateKey(nil)
	must(err)
	signer, err := jws.NewSigner("example", jws.EdDSA, "at+jwt", private)
	must(err)
	key, err := jws.NewPublicKey("example", jws.EdDSA, public)
	must(err)
	now := time.Now().Unix()
	token, err = signer.Sign(fmt.Appendf(nil, `{"iss":"https://app.example","sub":"user-1","aud":"orders","client_id":"default",`+
		`"sid":"4fzyo82mvyr9z0KfJ2W8QhpD","iat":%d,"exp":%d,"jti":"t1","auth_time":%d,"amr":["pwd"],"epoch":1,"plan":"gold"}`, now, now+60, now))
	must(err)

	mux := http.NewServeMux()
	answer := func(path, body string) {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, body)
		})
	}
	answer("GET /.well-known/oauth-authorization-server", `{"issuer":"https://app.example","cf_max_token_lifetime":300}`)
	answer("GET /.well-known/jwks.json", string(jwk.MarshalSet(jwk.Set{Version: 1, Keys: []*jws.PublicKey{key}})))
	answer("POST /oauth2/introspect", `{"active":true,"sid":"4fzyo82mvyr9z0KfJ2W8QhpD"}`)
	log := feed.NewServer(feed.ServerConfig{
		KeyVersion: func() int64 { return 1 }, Snapshot: func() []verify.Revocation { return nil }, Wake: func() {},
	})
	log.Publish(feed.Position{Timeline: 1}, nil, time.Now())
	mux.Handle("GET /v1/revocations", log)
	mux.HandleFunc("GET /v1/revocations/clock", log.ServeClock)
	return httptest.NewServer(mux), token
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
