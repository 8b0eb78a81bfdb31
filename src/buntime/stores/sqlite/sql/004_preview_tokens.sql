-- What opens previews that are not public. A token goes with its session.
CREATE TABLE preview_tokens (
  hash       TEXT PRIMARY KEY,
  session    TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
  port       INTEGER, -- NULL: every port
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX preview_tokens_by_session ON preview_tokens (session, expires_at);
CREATE INDEX preview_tokens_by_end ON preview_tokens (expires_at);
