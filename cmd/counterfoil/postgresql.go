package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/counterfoil/counterfoil"
)

const (
	// serverSilent is how long what was sent may stay without the other
	// machine's acknowledgement, and how long an idle connection may lead
	// nowhere, before it counts as lost.
	serverSilent = 10 * time.Second
	// connectionLife spreads connections anew, for instance over the hosts
	// that a name stands for.
	connectionLife = 30 * time.Minute
	// connectionIdle gives back to the server what a peak has left.
	connectionIdle = 5 * time.Minute
	// idleTransaction frees the locks of a node that is gone.
	idleTransaction = time.Minute
)

// parsePostgreSQL reads a URL, which may name several hosts by comma, each
// with a port or without. net/url takes a port at the end only.
func parsePostgreSQL(value string) (*url.URL, error) {
	scheme, rest, ok := strings.Cut(value, "://")
	if !ok {
		return nil, errors.New("want //")
	}
	authority, tail := rest, ""
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority, tail = rest[:i], rest[i:]
	}
	user, hosts := "", authority
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		user, hosts = authority[:i+1], authority[i+1:]
	}
	if !strings.Contains(hosts, ",") {
		return url.Parse(value)
	}
	for host := range strings.SplitSeq(hosts, ",") {
		if u, err := url.Parse(scheme + "://" + host); err != nil || u.Hostname() == "" {
			return nil, fmt.Errorf("host %q", host)
		}
	}
	u, err := url.Parse(scheme + "://" + user + "hosts" + tail)
	if err == nil {
		u.Host = hosts
	}
	return u, err
}

// openPostgreSQL makes the pool. Every connection leads to a server that
// takes writes: of several hosts to the primary among them, whichever that is.
func openPostgreSQL(u *url.URL) (*sql.DB, error) {
	config, err := pgx.ParseConfig(withConnectTimeout(u))
	if err != nil {
		return nil, err
	}
	nameConnections(config.RuntimeParams)
	dialer := &net.Dialer{
		Timeout:         config.ConnectTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: serverSilent / 2, Interval: serverSilent / 4, Count: 2},
		Control: func(network, _ string, conn syscall.RawConn) error {
			if !strings.HasPrefix(network, "tcp") {
				return nil
			}
			return limitSilence(conn, serverSilent)
		},
	}
	config.DialFunc = dialer.DialContext
	config.ValidateConnect = primaryOnly
	closeFatal := config.OnPgError
	config.OnPgError = func(conn *pgconn.PgConn, err *pgconn.PgError) bool {
		// A primary that was demoted keeps its connections.
		return closeFatal(conn, err) && err.Code != "25006"
	}
	db := stdlib.OpenDB(*config)
	db.SetConnMaxLifetime(connectionLife)
	db.SetConnMaxIdleTime(connectionIdle)
	return db, nil
}

// errNoPrimary is for a moment in which a failover is not over.
var errNoPrimary = fmt.Errorf("%w: this server takes no writes: it is a standby, or read-only", counterfoil.ErrStoreUnavailable)

// primaryOnly takes target_session_attrs for read-write whatever the URL says:
// a session must not be read from a standby.
func primaryOnly(ctx context.Context, conn *pgconn.PgConn) error {
	results, err := conn.Exec(ctx, fmt.Sprintf("SET idle_in_transaction_session_timeout = %d; SHOW transaction_read_only", idleTransaction.Milliseconds())).ReadAll()
	if err != nil {
		return err
	}
	if last := results[len(results)-1]; len(last.Rows) != 1 || string(last.Rows[0][0]) != "off" {
		return errNoPrimary
	}
	return nil
}
