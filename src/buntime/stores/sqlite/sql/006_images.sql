-- Names of images. An account's name hides the operator's, whose account is ''.
CREATE TABLE images (
  account    TEXT NOT NULL,
  name       TEXT NOT NULL,
  image      TEXT NOT NULL,
  size       INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  PRIMARY KEY (account, name)
) STRICT, WITHOUT ROWID;

-- The name by which the session was given its image.
ALTER TABLE sessions ADD COLUMN image_name TEXT NOT NULL DEFAULT 'default';
