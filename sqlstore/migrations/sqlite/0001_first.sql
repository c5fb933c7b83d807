-- Which migrations ran. The checksum is noted by who ran the file.
CREATE TABLE counterfoil_schema (
	version     INTEGER PRIMARY KEY,
	application TEXT NOT NULL,
	checksum    TEXT
) STRICT;
INSERT INTO counterfoil_schema VALUES (1, 'counterfoil', NULL);

-- One row: what every refresh reads beside the session.
CREATE TABLE counterfoil_meta (
	id          INTEGER PRIMARY KEY CHECK (id = 1),
	timeline    INTEGER NOT NULL, -- of the feed; a new one after a restore
	key_version INTEGER NOT NULL  -- grows with each change of the signing keys
) STRICT;
INSERT INTO counterfoil_meta VALUES (1, CAST(strftime('%s', 'now') AS INTEGER) * 1000000, 0);

-- Times are Unix milliseconds throughout, lists and objects JSON.
CREATE TABLE counterfoil_subjects (
	no                INTEGER PRIMARY KEY,
	id                TEXT    NOT NULL UNIQUE,
	epoch             INTEGER NOT NULL,
	signed_out_below  INTEGER NOT NULL DEFAULT 0,
	signed_out_at     INTEGER,
	signed_out_reason TEXT,
	signed_out_actor  TEXT,
	sweep_at          INTEGER, -- signed_out_at until the sessions it ended are purged
	roles             TEXT,
	scope             TEXT,
	disabled          INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX counterfoil_subjects_sweep ON counterfoil_subjects (sweep_at) WHERE sweep_at IS NOT NULL;

CREATE TABLE counterfoil_sessions (
	no             INTEGER PRIMARY KEY,
	sid            TEXT    NOT NULL UNIQUE,
	subject_no     INTEGER NOT NULL, -- counterfoil_subjects.no
	client_id      TEXT    NOT NULL,
	parent_sid     TEXT,
	derived        INTEGER NOT NULL DEFAULT 0, -- 1: others have this one as parent
	rev            INTEGER NOT NULL DEFAULT 0, -- grows with each change, for compare and swap
	created_at     INTEGER NOT NULL,
	last_active_at INTEGER NOT NULL,
	idle_ms        INTEGER NOT NULL,
	expires_at     INTEGER NOT NULL,
	auth_time      INTEGER, -- NULL: created_at
	epoch0         INTEGER NOT NULL,
	secret_hash    BLOB    NOT NULL,
	amr            TEXT,
	user_agent     TEXT,
	ip             TEXT,
	roles          TEXT,
	scope          TEXT,
	extra          TEXT,
	ended_at       INTEGER,
	end_reason     TEXT,
	end_actor      TEXT
) STRICT;
CREATE INDEX counterfoil_sessions_subject ON counterfoil_sessions (subject_no);
CREATE INDEX counterfoil_sessions_parent ON counterfoil_sessions (parent_sid) WHERE parent_sid IS NOT NULL;
-- When a session is or will be dead, for the sweep.
CREATE INDEX counterfoil_sessions_dead ON counterfoil_sessions (coalesce(ended_at, min(last_active_at + idle_ms, expires_at)));

-- AUTOINCREMENT: a position is never given twice, also when all rows are gone.
CREATE TABLE counterfoil_feed (
	id            INTEGER PRIMARY KEY AUTOINCREMENT,
	kind          TEXT    NOT NULL,
	ref           TEXT    NOT NULL,
	stale_below   INTEGER NOT NULL DEFAULT 0,
	revoked_below INTEGER NOT NULL DEFAULT 0,
	except_sid    TEXT,
	until         INTEGER NOT NULL
) STRICT;
CREATE INDEX counterfoil_feed_until ON counterfoil_feed (until) WHERE kind <> 'k';

CREATE TABLE counterfoil_keys (
	kid        TEXT    PRIMARY KEY,
	place      INTEGER NOT NULL, -- order within the ring
	algorithm  TEXT    NOT NULL,
	state      TEXT    NOT NULL,
	public     BLOB    NOT NULL,
	sealed     BLOB,
	created_at INTEGER NOT NULL,
	until      INTEGER
) STRICT;

CREATE TABLE counterfoil_api_keys (
	id           TEXT    PRIMARY KEY,
	name         TEXT    NOT NULL,
	client_id    TEXT    NOT NULL,
	scopes       TEXT,
	rev          INTEGER NOT NULL DEFAULT 0,
	created_at   INTEGER NOT NULL,
	expires_at   INTEGER,
	last_used_at INTEGER,
	revoked_at   INTEGER,
	secret_hash  BLOB    NOT NULL
) STRICT;

-- Roles, scope and disabled of a user are those of the subject with the same id.
CREATE TABLE counterfoil_users (
	id               TEXT    PRIMARY KEY,
	email            TEXT    NOT NULL,
	email_key        TEXT    NOT NULL UNIQUE,
	password         TEXT    NOT NULL,
	rev              INTEGER NOT NULL DEFAULT 0,
	created_at       INTEGER NOT NULL,
	updated_at       INTEGER NOT NULL,
	reset_hash       BLOB,
	reset_expires_at INTEGER
) STRICT;

CREATE TABLE counterfoil_throttle (
	key        TEXT    PRIMARY KEY,
	failures   INTEGER NOT NULL,
	not_before INTEGER,
	expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX counterfoil_throttle_expires ON counterfoil_throttle (expires_at);
