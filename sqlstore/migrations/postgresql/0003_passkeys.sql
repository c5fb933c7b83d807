INSERT INTO counterfoil_schema VALUES (3, 'counterfoil', NULL);

-- JSON, in the order in which they were added; NULL: none.
ALTER TABLE counterfoil_users ADD COLUMN passkeys text;

-- Uses and makings of passkeys that were begun; each is taken once.
CREATE TABLE counterfoil_ceremonies (
	challenge  text   COLLATE "C" PRIMARY KEY,
	kind       text   NOT NULL,
	browser    bytea  NOT NULL, -- hash of the cookie
	user_id    text,
	email      text,
	sid        text,
	expires_at bigint NOT NULL
);
CREATE INDEX counterfoil_ceremonies_expires ON counterfoil_ceremonies (expires_at);
