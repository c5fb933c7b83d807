INSERT INTO counterfoil_schema VALUES (4, 'counterfoil', NULL);

-- Entries of the feed are kept for as long as the longest that any node asked
-- for, also by nodes that need less. wal_timeline is the server's history that
-- the log was last written under: another one means that a standby was promoted.
ALTER TABLE counterfoil_meta ADD COLUMN retain_ms bigint NOT NULL DEFAULT 0;
ALTER TABLE counterfoil_meta ADD COLUMN retain_raised_at bigint NOT NULL DEFAULT 0;
ALTER TABLE counterfoil_meta ADD COLUMN wal_timeline bigint NOT NULL DEFAULT 0;
-- The timeline of the feed that began with that, and the highest position that
-- the standby had got.
ALTER TABLE counterfoil_meta ADD COLUMN cut_timeline bigint NOT NULL DEFAULT 0;
ALTER TABLE counterfoil_meta ADD COLUMN cut_position bigint NOT NULL DEFAULT 0;

-- A move of everything to another database (counterfoil move). On the old
-- side: since when writes are refused, and since when all is on the other. On
-- the new side the row is there until it can be used, and table meta is empty.
CREATE TABLE counterfoil_moves (
	id        integer PRIMARY KEY CHECK (id = 1),
	run       text    NOT NULL, -- of the command: the last one counts
	role      text    NOT NULL CHECK (role IN ('source', 'target')),
	source    text    NOT NULL, -- without secrets
	target    text    NOT NULL,
	alive_at  bigint  NOT NULL, -- when the command last said that it runs
	fenced_at bigint,
	moved_at  bigint,
	meta      text              -- JSON; new side: what table meta will hold, once all else is there
);

-- Sessions can be kept elsewhere (Redis): sessions_in says in which one. That
-- store has to be told what happened to them here, and to subjects: it is
-- written down with the change, and kept after it was told, so that it can be
-- told again when that store went back in time. What was told before
-- journal_from is no longer there.
ALTER TABLE counterfoil_meta ADD COLUMN sessions_in text;
ALTER TABLE counterfoil_meta ADD COLUMN journal_from bigint NOT NULL DEFAULT 0;
CREATE TABLE counterfoil_journal (
	no      bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	told_at bigint, -- NULL: not yet
	kind    text NOT NULL, -- s: a session ended, u: a subject changed
	ref     text NOT NULL, -- its sid, its id
	kept    text, -- the session that a sign-out of all others kept
	detail  text NOT NULL -- JSON
);
CREATE INDEX counterfoil_journal_untold ON counterfoil_journal (no) WHERE told_at IS NULL;
CREATE INDEX counterfoil_journal_told ON counterfoil_journal (told_at);
CREATE INDEX counterfoil_journal_ref ON counterfoil_journal (ref);
CREATE INDEX counterfoil_journal_kept ON counterfoil_journal (kept) WHERE kept IS NOT NULL;
-- A session ends once, also where two nodes end it at the same time.
CREATE UNIQUE INDEX counterfoil_journal_ended ON counterfoil_journal (ref) WHERE kind = 's';
