-- What was last seen inside a session: shown while it sleeps.
ALTER TABLE sessions ADD COLUMN files INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN processes INTEGER NOT NULL DEFAULT 0;
