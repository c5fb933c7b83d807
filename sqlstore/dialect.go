package sqlstore

import (
	"regexp"
	"strings"
)

// dialect is one of the two databases.
type dialect string

const (
	sqlite     dialect = "sqlite"
	postgresql dialect = "postgresql"
)

// defaultPrefix stands before every name in the migration files.
const defaultPrefix = "counterfoil_"

// 30 characters leave room for the longest name within PostgreSQL's 63.
var prefixPattern = regexp.MustCompile(`^[a-z][a-z0-9_]{0,29}$`)

var braces = regexp.MustCompile(`\{[a-z_]+\}`)

// compile turns a query as it stands in this package into one of the dialect:
// {sessions} is the table with its prefix, {lock} and {share} lock the rows of
// u where the dialect has row locks, {skip} locks and leaves out what others hold, {floor} is the highest feed position ever
// given, {clock} the server's clock, {now} the same unless $1 overrides it.
func (d dialect) compile(prefix, query string) string {
	query = braces.ReplaceAllStringFunc(query, func(name string) string {
		if text, ok := d.fragment(name); ok {
			return d.compile(prefix, text)
		}
		return prefix + strings.Trim(name, "{}")
	})
	if d == sqlite {
		// SQLite reads $1 as a name; ?1 is the same parameter by number.
		return strings.ReplaceAll(query, "$", "?")
	}
	return query
}

func (d dialect) fragment(name string) (string, bool) {
	fragments := map[string][2]string{ // SQLite, PostgreSQL
		"{lock}":  {``, ` FOR NO KEY UPDATE OF u`},
		"{share}": {``, ` FOR SHARE OF u`},
		"{skip}":  {``, ` FOR UPDATE SKIP LOCKED`},
		"{floor}": {`coalesce((SELECT seq FROM sqlite_sequence WHERE name = '{feed}'), 0)`,
			`(SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {feed_position})`},
		"{dead}": {`coalesce(ended_at, min(last_active_at + idle_ms, expires_at))`,
			`coalesce(ended_at, least(last_active_at + idle_ms, expires_at))`},
		"{clock}": {`NULL`, `floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint`},
		"{now}":   {`$1`, `coalesce($1::bigint, {clock})`},
	}
	text, ok := fragments[name]
	if d == sqlite {
		return text[0], ok
	}
	return text[1], ok
}
