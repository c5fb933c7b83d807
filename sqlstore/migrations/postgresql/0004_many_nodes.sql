INSERT INTO counterfoil_schema VALUES (4, 'counterfoil', NULL);

-- Entries of the feed are kept for as long as the longest that any node asked
-- for, also by nodes that need less. wal_timeline is the server's history that
-- the log was last written under: another one means that a standby was promoted.
ALTER TABLE counterfoil_meta ADD COLUMN retain_ms bigint NOT NULL DEFAULT 0;
ALTER TABLE counterfoil_meta ADD COLUMN retain_raised_at bigint NOT NULL DEFAULT 0;
ALTER TABLE counterfoil_meta ADD COLUMN wal_timeline bigint NOT NULL DEFAULT 0;

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

-- What the store of the sessions has to be told where that is another one
-- (Redis): written with the change, kept after it was told, so that it can be
-- told again when that store went back in time.
CREATE TABLE counterfoil_journal (
	position bigint  PRIMARY KEY, -- counterfoil_feed.id, or drawn from its sequence
	at       bigint  NOT NULL,
	told     boolean NOT NULL DEFAULT false,
	kind     text    NOT NULL, -- s: a session ended, u: a subject changed
	ref      text    NOT NULL,
	detail   text
);
CREATE INDEX counterfoil_journal_untold ON counterfoil_journal (position) WHERE NOT told;
CREATE INDEX counterfoil_journal_at ON counterfoil_journal (at);
