-- A volume holds a session's files; a sandbox serves the session while it is awake. Until now they had the same id.
ALTER TABLE sessions ADD COLUMN volume TEXT NOT NULL DEFAULT '';
UPDATE sessions SET volume = sandbox;
