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

-- Sessions can be kept elsewhere (Redis): sessions_in says in which one. That
-- store has to be told what happened to them here, and to subjects: it is
-- written down with the change, and kept after it was told, so that it can be
-- told again when that store went back in time. What was told before
-- journal_from is no longer there.
ALTER TABLE counterfoil_meta ADD COLUMN sessions_in TEXT;
ALTER TABLE counterfoil_meta ADD COLUMN journal_from INTEGER NOT NULL DEFAULT 0;
CREATE TABLE counterfoil_journal (
	no      INTEGER PRIMARY KEY AUTOINCREMENT,
	told_at INTEGER, -- NULL: not yet
	kind    TEXT NOT NULL, -- s: a session ended, u: a subject changed
	ref     TEXT NOT NULL, -- its sid, its id
	kept    TEXT, -- the session that a sign-out of all others kept
	detail  TEXT NOT NULL -- JSON
) STRICT;
CREATE INDEX counterfoil_journal_untold ON counterfoil_journal (no) WHERE told_at IS NULL;
CREATE INDEX counterfoil_journal_told ON counterfoil_journal (told_at);
CREATE INDEX counterfoil_journal_ref ON counterfoil_journal (ref);
CREATE INDEX counterfoil_journal_kept ON counterfoil_journal (kept) WHERE kept IS NOT NULL;
-- A session ends once, also where two nodes end it at the same time.
CREATE UNIQUE INDEX counterfoil_journal_ended ON counterfoil_journal (ref) WHERE kind = 's';
