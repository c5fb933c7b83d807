//go:build linux

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/alexedwards/scs/pgxstore"
	"github.com/alexedwards/scs/redisstore"
	"github.com/alexedwards/scs/v2"
	"github.com/golang-jwt/jwt/v5"
	"github.com/gomodule/redigo/redis"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/counterfoil/counterfoil/bench/internal/load"
	"github.com/counterfoil/counterfoil/bench/internal/stage"
)

const (
	hybridDatabase = "hybrid"
	hybridTable    = `CREATE TABLE sessions (token TEXT PRIMARY KEY, data BYTEA NOT NULL, expiry TIMESTAMPTZ NOT NULL);
		CREATE INDEX sessions_expiry_idx ON sessions (expiry)`
)

// hybridStore is that of scs for the URL of a PostgreSQL database or a Redis.
func hybridStore(ctx context.Context, url string) (scs.Store, error) {
	if strings.HasPrefix(url, "redis:") {
		return redisstore.New(&redis.Pool{MaxIdle: 64, Dial: func() (redis.Conn, error) { return redis.DialURL(url) }}), nil
	}
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		return nil, err
	}
	_, err = pool.Exec(ctx, hybridTable)
	return pgxstore.New(pool), err
}

// serveHybrid serves what a good engineer writes by hand in an afternoon: the
// session manager scs with its PostgreSQL or Redis store, and golang-jwt for tokens of a
// minute. It has no users, no revocation of tokens, no audit.
func serveHybrid(args []string) error {
	store, err := hybridStore(context.Background(), args[1])
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	sessions := scs.New()
	sessions.Store = store
	answer := func(w http.ResponseWriter, status int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v) // the client may have gone
	}
	signedIn := func(next func(w http.ResponseWriter, r *http.Request, user string)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			user := sessions.GetString(r.Context(), "user")
			if user == "" {
				http.Error(w, "not signed in", http.StatusUnauthorized)
				return
			}
			next(w, r, user)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("POST /sign-in", func(w http.ResponseWriter, r *http.Request) {
		var in struct{ User string }
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if err := sessions.RenewToken(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		sessions.Put(r.Context(), "user", in.User)
		answer(w, http.StatusCreated, map[string]string{"sid": sessions.Token(r.Context())})
	})
	mux.HandleFunc("GET /session", signedIn(func(w http.ResponseWriter, _ *http.Request, user string) {
		answer(w, http.StatusOK, map[string]any{"user": user, "active": true})
	}))
	mux.HandleFunc("POST /token", signedIn(func(w http.ResponseWriter, _ *http.Request, user string) {
		now := time.Now()
		token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.RegisteredClaims{
			Issuer: "https://app.example", Subject: user, Audience: jwt.ClaimStrings{"app"}, ID: rand.Text(),
			IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(time.Minute)),
		})
		signed, err := token.SignedString(key)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		answer(w, http.StatusOK, map[string]any{"access_token": signed, "token_type": "Bearer", "expires_in": 60})
	}))
	mux.HandleFunc("POST /sign-out", func(w http.ResponseWriter, r *http.Request) {
		if err := sessions.Destroy(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	return http.ListenAndServe(args[0], sessions.LoadAndSave(mux))
}

// newHybrid starts the server and its live sessions.
func newHybrid(ctx context.Context, s settings, postgres *stage.Postgres, redis *stage.Redis) (*contender, func() error, error) {
	store, url, held := onRedis, "", (*data)(nil)
	if postgres != nil {
		var err error
		if url, err = postgres.Create(ctx, hybridDatabase); err != nil {
			return nil, nil, err
		}
		store, held = onPostgres, hybridRows(postgres)
	} else {
		url, held = redis.URL, hybridKeys(redis)
	}
	server, err := startRole(ctx, "scs", url)
	if err != nil {
		return nil, nil, err
	}
	var signIns, check, mint [][]byte
	for n := range s.sessions {
		signIns = append(signIns, load.Request("POST", "/sign-in", server.Address, fmt.Sprintf(`{"user":"user-%d"}`, n)))
	}
	started := &harvest{}
	if err := once(ctx, server.Address, http.StatusCreated, signIns, started.add); err != nil {
		return nil, nil, errors.Join(err, server.Stop())
	}
	for _, token := range started.take() {
		check = append(check, load.Request("GET", "/session", server.Address, "", "Cookie: session="+token))
		mint = append(mint, load.Request("POST", "/token", server.Address, "", "Cookie: session="+token))
	}
	return &contender{
		name: "scs + golang-jwt", store: store, addresses: []string{server.Address}, pids: []int{server.PID},
		database: hybridDatabase, postgres: postgres, redis: redis, data: held,
		calls: []*call{
			{name: "refresh", status: http.StatusOK, prepare: always(mint)},
			{name: "live check, GET /session", status: http.StatusOK, prepare: always(check)},
			{name: "sign-in without the hash", status: http.StatusCreated, prepare: always(signIns), keep: started.add},
			{name: "revoke", status: http.StatusNoContent, prepare: func(context.Context) (requests [][]byte, once bool, err error) {
				for _, token := range started.take() {
					requests = append(requests, load.Request("POST", "/sign-out", server.Address, "", "Cookie: session="+token))
				}
				return requests, true, nil
			}},
		},
	}, server.Stop, nil
}
