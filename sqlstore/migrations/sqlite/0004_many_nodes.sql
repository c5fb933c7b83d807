INSERT INTO counterfoil_schema VALUES (4, 'counterfoil', NULL);

-- Entries of the feed are kept for as long as the longest that any node asked
-- for, also by nodes that need less.
ALTER TABLE counterfoil_meta ADD COLUMN retain_ms INTEGER NOT NULL DEFAULT 0;

-- A move of everything to another database (counterfoil move). On the old
-- side: since when writes are refused, and since when all is on the other. On
-- the new side the row is there until it can be used, and table meta is empty.
CREATE TABLE counterfoil_moves (
	id        INTEGER PRIMARY KEY CHECK (id = 1),
	run       TEXT    NOT NULL, -- of the command: the last one counts
	role      TEXT    NOT NULL CHECK (role IN ('source', 'target')),
	source    TEXT    NOT NULL, -- without secrets
	target    TEXT    NOT NULL,
	alive_at  INTEGER NOT NULL, -- when the command last said that it runs
	fenced_at INTEGER,
	moved_at  INTEGER,
	meta      TEXT              -- JSON; new side: what table meta will hold, once all else is there
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
