-- Keys from before scopes keep all but `operator`. `scopes` holds a JSON array.
ALTER TABLE keys ADD COLUMN name TEXT;
ALTER TABLE keys ADD COLUMN expires_at INTEGER; -- NULL: never
ALTER TABLE keys ADD COLUMN scopes TEXT NOT NULL DEFAULT
  '["sessions:read","sessions:write","account:read","account:write","secrets:use","secrets:write"]';

CREATE INDEX keys_by_account ON keys (account, created_at, id);
