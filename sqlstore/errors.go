package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/counterfoil/counterfoil"
)

// errClosed is what calls get after [Store.Close].
var errClosed = errors.New("the store was closed")

// errChanged says that the row was changed between reading and writing.
var errChanged = errors.New("changed meanwhile")

// SQLite result codes that this package acts on.
const (
	sqliteBusy       = 5
	sqliteLocked     = 6
	sqliteConstraint = 19
)

// SQLite result codes that say the database cannot be used now.
var sqliteUnavailable = map[int]bool{sqliteBusy: true, sqliteLocked: true,
	7: true /* NOMEM */, 8: true /* READONLY */, 9: true /* INTERRUPT */, 10: true /* IOERR */, 11: true, /* CORRUPT */
	13: true /* FULL */, 14: true /* CANTOPEN */, 15: true /* PROTOCOL */, 26: true /* NOTADB */}

// sqliteCode returns the primary result code of a modernc.org/sqlite error, 0 when it is none.
func sqliteCode(err error) int {
	var coded interface{ Code() int }
	if errors.As(err, &coded) {
		return coded.Code() & 0xff
	}
	return 0
}

func sqliteIsBusy(err error) bool {
	code := sqliteCode(err)
	return code == sqliteBusy || code == sqliteLocked
}

// sqlState returns the five characters of a PostgreSQL error, "" when it is none.
func sqlState(err error) string {
	var stated interface{ SQLState() string }
	if errors.As(err, &stated) {
		return stated.SQLState()
	}
	return ""
}

// repeatable says that PostgreSQL undid the transaction because of what ran
// beside it: a serialization failure or a deadlock.
func repeatable(err error) bool {
	state := sqlState(err)
	return state == "40001" || state == "40P01"
}

// readOnly is what a standby says to a write, and so does a primary that was demoted.
const readOnly = "25006"

// lost says that it is the connection that failed, or the server behind it,
// and not what was asked of it. What was asked may have happened.
func lost(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errSilent) {
		return false
	}
	if errors.Is(err, driver.ErrBadConn) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) {
		return true
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	switch state := sqlState(err); state {
	case "57P01", "57P02", "57P03": // shut down, crashed, starting
		return true
	default:
		return refused(err) || strings.HasPrefix(state, "08")
	}
}

// refused says that the connection or its server was of no use, and that
// nothing has happened.
func refused(err error) bool {
	var safe interface{ SafeToRetry() bool } // pgx: it was not sent
	if errors.As(err, &safe) && safe.SafeToRetry() {
		return true
	}
	return sqlState(err) == readOnly || errors.Is(err, driver.ErrBadConn)
}

// unavailable says that the database could not be asked, as opposed to
// having refused.
func unavailable(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	if errors.Is(err, errClosed) || errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) {
		return true
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	if state := sqlState(err); state != "" {
		switch state[:2] {
		case "08", "53", "57", "58", "XX": // connection, resources, shutdown, system, internal
			return state != "57014" // query_canceled
		}
		return state == readOnly
	}
	// database/sql has no value for this one.
	return sqliteUnavailable[sqliteCode(err)] || strings.HasSuffix(err.Error(), "sql: database is closed")
}

// failed wraps err with what was being done.
func failed(op string, err error) error {
	switch {
	case fenced(err):
		return fmt.Errorf("sqlstore: %s: %w", op, counterfoil.ErrStoreMoving)
	case errors.Is(err, errNoMeta):
		return fmt.Errorf("sqlstore: %s: %w: %w", op, counterfoil.ErrStoreMoved, err)
	}
	if unavailable(err) && !errors.Is(err, counterfoil.ErrStoreUnavailable) {
		return fmt.Errorf("sqlstore: %s: %w: %w", op, counterfoil.ErrStoreUnavailable, err)
	}
	return fmt.Errorf("sqlstore: %s: %w", op, err)
}
