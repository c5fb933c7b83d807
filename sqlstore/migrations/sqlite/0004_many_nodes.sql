INSERT INTO counterfoil_schema VALUES (4, 'counterfoil', NULL);

-- Entries of the feed are kept for as long as the longest that any node asked
-- for, also by nodes that need less.
ALTER TABLE counterfoil_meta ADD COLUMN retain_ms INTEGER NOT NULL DEFAULT 0;

-- Where everything went to; while there is a row without moved_at, a move has
-- fenced writes.
CREATE TABLE counterfoil_moves (
	id        INTEGER PRIMARY KEY CHECK (id = 1),
	target    TEXT    NOT NULL, -- without secrets
	fenced_at INTEGER NOT NULL,
	moved_at  INTEGER
) STRICT;

-- What the store of the sessions has to be told where that is another one
-- (Redis): written with the change, kept after it was told, so that it can be
-- told again when that store went back in time.
CREATE TABLE counterfoil_journal (
	position INTEGER PRIMARY KEY, -- counterfoil_feed.id, or drawn from its numbers
	at       INTEGER NOT NULL,
	told     INTEGER NOT NULL DEFAULT 0,
	kind     TEXT    NOT NULL, -- s: a session ended, u: a subject changed
	ref      TEXT    NOT NULL,
	detail   TEXT
) STRICT;
CREATE INDEX counterfoil_journal_untold ON counterfoil_journal (position) WHERE told = 0;
CREATE INDEX counterfoil_journal_at ON counterfoil_journal (at);
