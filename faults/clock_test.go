//go:build linux

package faults

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
	"github.com/counterfoil/counterfoil/httpapi"
	"github.com/counterfoil/counterfoil/sqlstore"
)

func init() { helpers["clock"] = clockNode }

// clockNode serves as the command does, on a machine whose clock is off by
// what the first argument says. The command takes no clock from outside.
func clockNode(args []string) error {
	off, err := time.ParseDuration(args[0])
	if err != nil {
		return err
	}
	listen, database, seal := args[1], args[2], args[3]
	db, err := sql.Open("pgx", database)
	if err != nil {
		return err
	}
	ctx := context.Background()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	store := sqlstore.PostgreSQL(db)
	auth, err := counterfoil.New(ctx, store, counterfoil.Config{
		Issuer: issuer, Audiences: []string{"app"}, Seal: counterfoil.SealFile(seal), Logger: log,
		Clock: func() time.Time { return time.Now().Add(off) },
	})
	if err != nil {
		return err
	}
	users, err := directory.New(auth, store.Users(), directory.Config{Logger: log})
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, readyText)
	return httpapi.Server(httpapi.Handler(auth, httpapi.WithDirectory(users), httpapi.WithLogger(log))).Serve(listener)
}

// A node whose clock is an hour off, either way: it says that it is not
// ready and mints nothing, its revocations hold, and the other node serves.
func TestClockOff(t *testing.T) {
	for name, off := range map[string]time.Duration{"ahead": time.Hour, "behind": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database := newDatabase(t)
			s := newSystem(t, database, database, database)
			odd := s.nodes[0]
			seal := odd.argv[len(odd.argv)-1]
			odd.argv = []string{os.Args[0], off.String(), strings.TrimPrefix(odd.url, "http://"), database, seal}
			odd.env = cleanEnv(helperVariable + "=clock")
			s.start()
			s.goOn(300)
			s.notReady(odd)
			s.serves(odd)
			s.goOn(600)

			// Asked for a token, it has none; told of an end, it ends.
			c := newHTTPClient()
			defer c.CloseIdleConnections()
			ctx := t.Context()
			good := s.nodes[1].url
			made := request(ctx, c, "POST", good+"/v1/sessions", s.key, `{"subject":"clock"}`)
			if made.status != 201 {
				t.Fatal(made.problem)
			}
			for _, path := range []string{"/v1/auth/refresh", "/v1/sessions"} {
				bearer, body := made.sessionToken, ""
				if path == "/v1/sessions" {
					bearer, body = s.key, `{"subject":"clock"}`
				}
				if a := request(ctx, c, "POST", odd.url+path, bearer, body); !a.unavailable() || a.status == 0 {
					t.Errorf("%s at the node whose clock is off: %d %s", path, a.status, a.problem)
				}
			}
			// Asked whether a token holds, it does not know.
			if status := introspect(t, odd.url, s.key, made.accessToken); status != 503 {
				t.Errorf("a live check at the node whose clock is off: %d", status)
			}
			if a := request(ctx, c, "DELETE", odd.url+"/v1/sessions/"+made.sid, s.key, ""); a.status != 204 {
				t.Errorf("a revocation at the node whose clock is off: %d %s", a.status, a.problem)
			}
			if a := request(ctx, c, "POST", good+"/v1/auth/refresh", made.sessionToken, ""); a.code != "session_revoked" {
				t.Errorf("after it: %d %s", a.status, a.problem)
			}
			for _, w := range s.watchers {
				s.wait(w.name+" refuses what the odd node revoked", patience, func() bool {
					_, err := w.plain(ctx, made.accessToken)
					return err != nil
				})
			}
			s.odd = odd
			s.finish()
			s.within(2 * time.Second)
		})
	}
}

// introspect asks a node about an access token.
func introspect(t *testing.T, node, key, token string) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "POST", node+"/oauth2/introspect", strings.NewReader("token="+token))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Authorization", "Bearer "+key)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	return answer.StatusCode
}
