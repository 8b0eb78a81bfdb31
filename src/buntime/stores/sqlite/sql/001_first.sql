-- Times are Unix seconds. Columns named after a table (limits, preview, ...) hold JSON objects.

CREATE TABLE accounts (
  id         TEXT PRIMARY KEY,
  plan       TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  status     TEXT NOT NULL CHECK (status IN ('active', 'suspended', 'deleted')),
  overrides  TEXT NOT NULL
) STRICT;

CREATE TABLE keys (
  id         TEXT PRIMARY KEY,
  account    TEXT NOT NULL REFERENCES accounts (id),
  hash       TEXT NOT NULL UNIQUE,
  hint       TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  revoked_at INTEGER
) STRICT;

-- No reference to accounts: a store that is rebuilt from the volumes knows sessions first.
CREATE TABLE sessions (
  id          TEXT PRIMARY KEY,
  account     TEXT NOT NULL,
  state       TEXT NOT NULL CHECK (state IN ('active', 'idle', 'deep-sleep', 'deleting')),
  created_at  INTEGER NOT NULL,
  expires_at  INTEGER NOT NULL,
  last_active INTEGER NOT NULL,
  sandbox     TEXT NOT NULL,
  image       TEXT NOT NULL,
  host        TEXT NOT NULL,
  epoch       INTEGER NOT NULL,
  version     INTEGER NOT NULL,
  on_wake     TEXT,
  limits      TEXT NOT NULL,
  metadata    TEXT NOT NULL,
  preview     TEXT NOT NULL,
  network     TEXT NOT NULL,
  env         TEXT NOT NULL
) STRICT;

-- Counting an account's sessions, as every create does, reads this index alone.
CREATE INDEX sessions_by_account ON sessions (account, state);

CREATE TABLE answers (
  account     TEXT NOT NULL,
  key         TEXT NOT NULL,
  fingerprint TEXT NOT NULL,
  status      INTEGER NOT NULL,
  created_at  INTEGER NOT NULL,
  packed      INTEGER NOT NULL, -- 1: body is compressed by zlib
  body        BLOB NOT NULL,
  UNIQUE (account, key)
) STRICT;

CREATE INDEX answers_by_age ON answers (created_at);
