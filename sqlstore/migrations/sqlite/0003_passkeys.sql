INSERT INTO counterfoil_schema VALUES (3, 'counterfoil', NULL);

-- JSON, in the order in which they were added; NULL: none.
ALTER TABLE counterfoil_users ADD COLUMN passkeys TEXT;

-- Uses and makings of passkeys that were begun; each is taken once.
CREATE TABLE counterfoil_ceremonies (
	challenge  TEXT    PRIMARY KEY,
	kind       TEXT    NOT NULL,
	browser    BLOB    NOT NULL, -- hash of the cookie
	user_id    TEXT,
	email      TEXT,
	sid        TEXT,
	expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX counterfoil_ceremonies_expires ON counterfoil_ceremonies (expires_at);
