-- Layers hold files. Snapshots and made images refer to them. `saved`, `metadata` and `env` hold JSON objects.
CREATE TABLE layers (
  id         TEXT PRIMARY KEY,
  account    TEXT NOT NULL,
  image      TEXT NOT NULL,
  size       INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  key        TEXT NOT NULL,
  saved      TEXT,
  fork       TEXT NOT NULL -- '': no fork needs it
) STRICT;

CREATE INDEX layers_by_account ON layers (account, created_at, id);
CREATE UNIQUE INDEX layers_by_fork ON layers (account, fork) WHERE fork <> '';

-- No reference to sessions: a snapshot stays when its session is gone.
CREATE TABLE snapshots (
  id           TEXT PRIMARY KEY,
  account      TEXT NOT NULL,
  session      TEXT NOT NULL,
  layer        TEXT NOT NULL REFERENCES layers (id),
  image        TEXT NOT NULL,
  image_name   TEXT NOT NULL,
  size         INTEGER NOT NULL,
  created_at   INTEGER NOT NULL,
  expires_at   INTEGER, -- NULL: never
  name         TEXT,
  metadata     TEXT NOT NULL,
  is_automatic INTEGER NOT NULL CHECK (is_automatic IN (0, 1))
) STRICT;

CREATE INDEX snapshots_by_account ON snapshots (account, created_at DESC, id);
CREATE INDEX snapshots_by_session ON snapshots (session);
CREATE INDEX snapshots_by_layer ON snapshots (layer);
CREATE INDEX snapshots_by_end ON snapshots (expires_at) WHERE expires_at IS NOT NULL;

-- Images that accounts make. The table `images` has their names.
CREATE TABLE made_images (
  id         TEXT PRIMARY KEY,
  base       TEXT NOT NULL,
  layer      TEXT NOT NULL REFERENCES layers (id),
  env        TEXT NOT NULL,
  size       INTEGER NOT NULL,
  created_at INTEGER NOT NULL
) STRICT;

CREATE INDEX made_images_by_layer ON made_images (layer);

-- What keeps an image.
CREATE INDEX images_by_image ON images (image);
CREATE INDEX sessions_by_image ON sessions (image, account);
CREATE INDEX snapshots_by_image ON snapshots (image, account);
CREATE INDEX layers_by_image ON layers (image, account);
CREATE INDEX made_images_by_base ON made_images (base);
