-- Which migrations ran. The checksum is noted by who ran the file.
CREATE TABLE counterfoil_schema (
	version     integer PRIMARY KEY,
	application text NOT NULL,
	checksum    text
);
INSERT INTO counterfoil_schema VALUES (1, 'counterfoil', NULL);

-- One row: what every refresh reads beside the session.
CREATE TABLE counterfoil_meta (
	id          integer PRIMARY KEY CHECK (id = 1),
	timeline    bigint  NOT NULL, -- of the feed; a new one after a restore
	key_version bigint  NOT NULL  -- grows with each change of the signing keys
);
INSERT INTO counterfoil_meta VALUES (1, floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint, 0);

-- Times are Unix milliseconds throughout, lists and objects JSON. Texts that
-- are looked up compare by bytes.
CREATE TABLE counterfoil_subjects (
	no                bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	epoch             bigint  NOT NULL,
	signed_out_below  bigint  NOT NULL DEFAULT 0,
	signed_out_at     bigint,
	sweep_at          bigint, -- signed_out_at until the sessions it ended are purged
	disabled          boolean NOT NULL DEFAULT false,
	id                text    COLLATE "C" NOT NULL UNIQUE,
	signed_out_reason text,
	signed_out_actor  text,
	roles             text,
	scope             text
);
CREATE INDEX counterfoil_subjects_sweep ON counterfoil_subjects (sweep_at) WHERE sweep_at IS NOT NULL;

CREATE TABLE counterfoil_sessions (
	subject_no     bigint  NOT NULL, -- counterfoil_subjects.no
	created_at     bigint  NOT NULL,
	last_active_at bigint  NOT NULL,
	idle_ms        bigint  NOT NULL,
	expires_at     bigint  NOT NULL,
	epoch0         bigint  NOT NULL,
	auth_time      bigint, -- NULL: created_at
	ended_at       bigint,
	rev            integer NOT NULL DEFAULT 0, -- grows with each change, for compare and swap
	derived        boolean NOT NULL DEFAULT false, -- others have this one as parent
	sid            text    COLLATE "C" PRIMARY KEY,
	secret_hash    bytea   NOT NULL,
	client_id      text    NOT NULL,
	parent_sid     text    COLLATE "C",
	amr            text,
	user_agent     text,
	ip             text,
	roles          text,
	scope          text,
	extra          text,
	end_reason     text,
	end_actor      text
);
CREATE INDEX counterfoil_sessions_subject ON counterfoil_sessions (subject_no);
CREATE INDEX counterfoil_sessions_parent ON counterfoil_sessions (parent_sid) WHERE parent_sid IS NOT NULL;
-- When a session is or will be dead, for the sweep.
CREATE INDEX counterfoil_sessions_dead ON counterfoil_sessions (coalesce(ended_at, least(last_active_at + idle_ms, expires_at)));

-- A plain sequence: numbers may be missing and may commit out of order.
CREATE SEQUENCE counterfoil_feed_position;
CREATE TABLE counterfoil_feed (
	id            bigint PRIMARY KEY DEFAULT nextval('counterfoil_feed_position'),
	stale_below   bigint NOT NULL DEFAULT 0,
	revoked_below bigint NOT NULL DEFAULT 0,
	until         bigint NOT NULL,
	kind          text   NOT NULL,
	ref           text   NOT NULL,
	except_sid    text
);
CREATE INDEX counterfoil_feed_until ON counterfoil_feed (until) WHERE kind <> 'k';

CREATE TABLE counterfoil_keys (
	kid        text    COLLATE "C" PRIMARY KEY,
	place      integer NOT NULL, -- order within the ring
	algorithm  text    NOT NULL,
	state      text    NOT NULL,
	public     bytea   NOT NULL,
	sealed     bytea,
	created_at bigint  NOT NULL,
	until      bigint
);

CREATE TABLE counterfoil_api_keys (
	id           text    COLLATE "C" PRIMARY KEY,
	name         text    NOT NULL,
	client_id    text    NOT NULL,
	scopes       text,
	rev          integer NOT NULL DEFAULT 0,
	created_at   bigint  NOT NULL,
	expires_at   bigint,
	last_used_at bigint,
	revoked_at   bigint,
	secret_hash  bytea   NOT NULL
);

-- Roles, scope and disabled of a user are those of the subject with the same id.
CREATE TABLE counterfoil_users (
	id               text    COLLATE "C" PRIMARY KEY,
	email            text    NOT NULL,
	email_key        text    COLLATE "C" NOT NULL UNIQUE,
	password         text    NOT NULL,
	rev              integer NOT NULL DEFAULT 0,
	created_at       bigint  NOT NULL,
	updated_at       bigint  NOT NULL,
	reset_hash       bytea,
	reset_expires_at bigint
);

CREATE TABLE counterfoil_throttle (
	key        text    COLLATE "C" PRIMARY KEY,
	failures   bigint  NOT NULL,
	not_before bigint,
	expires_at bigint  NOT NULL
);
CREATE INDEX counterfoil_throttle_expires ON counterfoil_throttle (expires_at);
