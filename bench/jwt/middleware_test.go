package jwt

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil/bench/internal/load"
	"github.com/counterfoil/counterfoil/internal/jws"
	"github.com/counterfoil/counterfoil/verify"
)

// BenchmarkMiddleware sends requests with access tokens over HTTP to handlers
// behind middleware, and to a bare handler that is sent the same headers and
// looks at none. 256 tokens are in use. Counterfoil remembers those that it has
// verified, with its own clock and revocations looked at each time; the others
// verify each time, as they come. One connection; the times are of server and
// client together.
func BenchmarkMiddleware(b *testing.B) {
	for _, alg := range []jws.Alg{jws.ES256, jws.EdDSA} {
		b.Run(string(alg), func(b *testing.B) {
			k := newKey(b, alg)
			sign := k.tokens(b)
			tokens := make([]string, 256)
			for i := range tokens {
				tokens[i] = sign()
			}
			var candidates []candidate
			for _, c := range []struct {
				name    string
				handler http.Handler
			}{
				{"bare", http.HandlerFunc(answer)},
				{"handler", k.verifier(b).Handler(func(w http.ResponseWriter, r *http.Request, c *verify.Claims) {
					if c.SessionID == "" {
						panic("no claims")
					}
					answer(w, r)
				})},
				{"require", k.verifier(b).Require()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if c, ok := verify.FromContext(r.Context()); !ok || c.SessionID == "" {
						panic("no claims")
					}
					answer(w, r)
				}))},
				{"golang-jwt", behind(k.golangCheck())},
				{"go-jose", behind(k.joseCheck())},
				{"jwx", behind(k.jwxCheck(b))},
			} {
				candidates = append(candidates, candidate{c.name, asker(b, c.handler, tokens)})
			}
			inTurns(b, func(int) {}, candidates)
		})
	}
}

// verifier is one that remembers tokens, as it does by default.
func (k key) verifier(b *testing.B) *verify.Verifier {
	public, err := jws.NewPublicKey(kid, k.alg, k.private.Public())
	if err != nil {
		b.Fatal(err)
	}
	v, err := verify.NewLocal(verify.Config{Issuer: issuer, Audience: audience},
		verify.Local{Key: func(id string) (*jws.PublicKey, bool) { return public, id == kid }})
	if err != nil {
		b.Fatal(err)
	}
	return v
}

func answer(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte(`{"ok":true}`)) // the client may have gone
}

// behind is middleware as one writes it around such a check.
func behind(check func(token string) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok || check(token) != nil {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		answer(w, r)
	})
}

// asker sends requests over a connection of its own, with one token after the other.
func asker(b *testing.B, h http.Handler, tokens []string) func(n int) error {
	server := httptest.NewServer(h)
	b.Cleanup(server.Close)
	address := server.Listener.Addr().String()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() }) // nothing is left to be sent
	answers := bufio.NewReader(conn)
	requests := make([][]byte, len(tokens))
	for i, token := range tokens {
		requests[i] = load.Request("GET", "/orders", address, "", "Accept: */*", "User-Agent: bench", "Authorization: Bearer "+token)
	}
	ask := func(n int) error {
		if _, err := conn.Write(requests[n%len(requests)]); err != nil {
			return err
		}
		return readAnswer(answers)
	}
	for n := range requests {
		if err := ask(n); err != nil {
			b.Fatal(err)
		}
	}
	return ask
}

func readAnswer(from *bufio.Reader) error {
	for first := true; ; first = false {
		line, err := from.ReadSlice('\n')
		switch {
		case err != nil:
			return err
		case first && !strings.HasPrefix(string(line), "HTTP/1.1 200 "):
			return fmt.Errorf("answered %q", line)
		case len(line) <= len("\r\n"):
			var body [len(`{"ok":true}`)]byte
			if _, err := io.ReadFull(from, body[:]); err != nil {
				return errors.Join(errors.New("the answer ends early"), err)
			}
			return nil
		}
	}
}
