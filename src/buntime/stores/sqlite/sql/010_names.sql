-- What clients call a session. The index decides who gets a name; a session that is being deleted has given up its own.
ALTER TABLE sessions ADD COLUMN name TEXT;
CREATE UNIQUE INDEX sessions_by_name ON sessions (account, name) WHERE name IS NOT NULL AND state <> 'deleting';

-- Headers of the answer, as a JSON object.
ALTER TABLE answers ADD COLUMN headers TEXT NOT NULL DEFAULT '{}';
