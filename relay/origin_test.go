package relay

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/internal/feed"
	"github.com/counterfoil/counterfoil/internal/jwk"
	"github.com/counterfoil/counterfoil/internal/jws"
	"github.com/counterfoil/counterfoil/internal/opaque"
	"github.com/counterfoil/counterfoil/internal/revoked"
	"github.com/counterfoil/counterfoil/verify"
)

const (
	testIssuer   = "https://app.example"
	testAudience = "orders"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelDebug}))

// origin plays a node of an authority: a log, the server that reads it, keys,
// API keys and live checks.
type origin struct {
	key *ecdsa.PrivateKey

	mu       sync.Mutex
	version  int64
	kids     []string
	table    *revoked.Table
	log      []revoked.Entry
	foreign  []revoked.Entry // that are in force, for snapshots
	server   *feed.Server
	servers  int
	timeline int64
	seq      int64
	frozen   time.Time // when it lost its store; zero: it has it
	unread   []revoked.Entry
	bad      map[string]bool // API keys
	ended    map[string]bool // sessions, for live checks

	vouched, asked, fetched atomic.Int64
}

func newOrigin(t testing.TB) *origin {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	o := &origin{key: key, version: 1, kids: []string{"k1", "k2"}, table: revoked.NewTable(nil), timeline: 7, seq: 100,
		bad: make(map[string]bool), ended: make(map[string]bool)}
	o.start()
	return o
}

func (o *origin) start() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.servers++
	o.server = feed.NewServer(feed.ServerConfig{
		Node: fmt.Sprint("origin-", o.servers), Retain: time.Minute, KeyVersion: o.keyVersion,
		Snapshot: o.snapshot, Wake: func() { o.publish() },
	})
	entries, at := o.read(nil)
	o.table.Apply(entries...)
	o.server.Publish(feed.Position{Timeline: o.timeline, Seq: o.seq}, slices.Clone(o.log), at)
}

func (o *origin) restart() {
	o.present().Close()
	o.start()
}

// restored begins another timeline, of which only some entries are left.
func (o *origin) restored(keep func(revoked.Entry) bool) {
	o.mu.Lock()
	o.timeline += 1000
	o.log = slices.DeleteFunc(o.log, func(e revoked.Entry) bool { return !keep(e) })
	o.table = revoked.NewTable(nil)
	o.table.Apply(o.log...)
	o.seq += 1 << 40
	pos, log, server, at := feed.Position{Timeline: o.timeline, Seq: o.seq}, slices.Clone(o.log), o.server, o.frozen
	if at.IsZero() {
		at = time.Now()
	}
	o.mu.Unlock()
	server.Publish(pos, log, at)
}

func (o *origin) present() *feed.Server {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.server
}

func (o *origin) keyVersion() int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.version
}

func (o *origin) snapshot() []revoked.Entry {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append(o.table.Snapshot(), o.foreign...)
}

// publish is one read of the log.
func (o *origin) publish(entries ...revoked.Entry) {
	o.mu.Lock()
	defer o.mu.Unlock()
	entries, at := o.read(entries)
	o.table.Apply(entries...)
	o.server.Publish(feed.Position{Timeline: o.timeline, Seq: o.seq}, entries, at)
}

func (o *origin) read(committed []revoked.Entry) ([]revoked.Entry, time.Time) {
	o.unread = append(o.unread, committed...)
	if !o.frozen.IsZero() {
		return nil, o.frozen
	}
	entries := o.unread
	o.unread = nil
	for i := range entries {
		o.seq++
		entries[i].Position = o.seq
	}
	o.log = append(o.log, entries...)
	return slices.Clone(entries), time.Now()
}

func (o *origin) freeze(cut bool) {
	o.publish()
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case !cut:
		o.frozen = time.Time{}
	case o.frozen.IsZero():
		o.frozen = time.Now()
	}
}

func (o *origin) change(f func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f()
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key := r.Header.Get("Authorization")
	o.mu.Lock()
	bad := o.bad[key]
	o.mu.Unlock()
	switch r.Method + " " + r.URL.Path {
	case "GET /.well-known/oauth-authorization-server":
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":"https://app.example/.well-known/jwks.json","cf_max_token_lifetime":60,"cf_of_tomorrow":[1]}`, testIssuer)
	case "GET /.well-known/jwks.json":
		o.fetched.Add(1)
		w.Header().Set("Content-Type", "application/jwk-set+json")
		w.Header().Set("Cache-Control", "max-age=300")
		w.Write(o.jwks())
	case "GET /v1/revocations", "GET /v1/revocations/clock", "POST /oauth2/introspect":
		if bad || key == "" {
			verify.WriteError(w, r, verify.ErrTokenInvalid)
			return
		}
		o.serve(w, r)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (o *origin) serve(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case feedPath:
		o.present().ServeHTTP(w, r)
	case clockPath:
		o.vouched.Add(1)
		o.present().ServeClock(w, r)
	default:
		o.asked.Add(1)
		sid := sessionOf(r.FormValue("token"))
		o.mu.Lock()
		ended := o.ended[sid]
		o.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"active":%v}`, !ended)
	}
}

// jwks has a key of a kind that nobody knows, too.
func (o *origin) jwks() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	var set jwk.Set
	for _, kid := range o.kids {
		public, err := jws.NewPublicKey(kid, jws.ES256, o.key.Public())
		if err != nil {
			panic(err)
		}
		set.Keys = append(set.Keys, public)
	}
	set.Version = o.version
	return []byte(`{"cf_of_tomorrow":{"a":1},` + string(jwk.MarshalSet(set))[1:len(jwk.MarshalSet(set))-1] + `}`)
}

// mint makes a token of a session that lives five minutes by its exp, so that
// what is refused in a test is refused for a revocation.
func (o *origin) mint(t testing.TB, kid, sid string) string {
	t.Helper()
	signer, err := jws.NewSigner(kid, jws.ES256, verify.TokenType, o.key)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Unix()
	payload, err := json.Marshal(map[string]any{
		"iss": testIssuer, "sub": "user", "aud": testAudience, "client_id": "default", "sid": sid, "jti": "t" + sid,
		"iat": now, "exp": now + 60, "auth_time": now, "amr": []string{"pwd"}, "epoch": 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	token, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func sessionOf(token string) string {
	m, err := jws.Parse(token)
	if err != nil {
		return ""
	}
	var p struct{ Sid string }
	if json.Unmarshal(m.Payload, &p) != nil {
		return ""
	}
	return p.Sid
}

func endSession(sid string) revoked.Entry {
	return revoked.Entry{Kind: revoked.Session, ID: sid, Until: time.Now().Add(75 * time.Second)}
}

// newKey makes an API key that has the shape of one.
func newKey() string {
	secret, _ := opaque.New(opaque.APIKey, opaque.NewID())
	return secret.Reveal()
}
