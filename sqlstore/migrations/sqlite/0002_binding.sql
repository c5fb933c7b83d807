-- The key of the device that a session is bound to; NULL: to none.
ALTER TABLE counterfoil_sessions ADD COLUMN binding BLOB;
INSERT INTO counterfoil_schema VALUES (2, 'counterfoil', NULL);
