-- needs: 1
-- Text is compared by its bytes (COLLATE "C"), as Python does. Columns that hold JSON hold it as ASCII text, because
-- jsonb takes neither NUL nor lone surrogates. Times are Unix seconds unless a comment says otherwise.

-- Changes that have committed, so that a server which lost its connection during a commit finds out what became of it.
-- `made` is false where the server has given the change up: then it can commit no more.
CREATE TABLE changes (
  id   uuid PRIMARY KEY,
  made boolean NOT NULL,
  at   timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE accounts (
  id         text COLLATE "C" PRIMARY KEY,
  plan       text NOT NULL,
  created_at bigint NOT NULL,
  status     text NOT NULL CHECK (status IN ('active', 'suspended', 'deleted')),
  overrides  text NOT NULL
);

CREATE TABLE keys (
  id         text COLLATE "C" PRIMARY KEY,
  account    text COLLATE "C" NOT NULL REFERENCES accounts (id),
  hash       text COLLATE "C" NOT NULL UNIQUE,
  hint       text NOT NULL,
  created_at bigint NOT NULL,
  revoked_at bigint,
  name       text,
  scopes     text NOT NULL,
  expires_at bigint, -- NULL: never
  maker      text    -- the id of the key that made this one by the API. NULL: the command line on a server
);

CREATE INDEX keys_by_account ON keys (account, created_at, id);

-- A session that never ends has the largest integer in `expires_at`. `changed` is the transaction that changed it last,
-- activity apart: a reader finds what has changed since the oldest transaction that ran when it read before.
CREATE TABLE sessions (
  id               text COLLATE "C" PRIMARY KEY,
  account          text COLLATE "C" NOT NULL,
  state            text NOT NULL CHECK (state IN ('active', 'idle', 'deep-sleep', 'deleting')),
  created_at       bigint NOT NULL,
  expires_at       bigint NOT NULL,
  last_active      bigint NOT NULL,
  sandbox          text NOT NULL,
  volume           text NOT NULL,
  image            text COLLATE "C" NOT NULL,
  image_name       text NOT NULL,
  made_of          text,
  host             text NOT NULL,
  epoch            bigint NOT NULL,
  version          bigint NOT NULL,
  on_wake          text,
  limits           text NOT NULL,
  metadata         text NOT NULL,
  preview          text NOT NULL,
  network          text NOT NULL,
  env              text NOT NULL,
  files            bigint NOT NULL,
  processes        bigint NOT NULL,
  key              text NOT NULL,
  snapshot         text,
  previous         text,
  archived         boolean NOT NULL,
  name             text COLLATE "C",
  checkpoint_every bigint,
  idle_after       bigint,
  deep_sleep_after bigint,
  awake_while      text NOT NULL,
  services         text NOT NULL,
  changed          xid8 NOT NULL
) WITH (fillfactor = 80); -- room beside a row for its next version: activity then changes no index

CREATE UNIQUE INDEX sessions_by_name ON sessions (account, name) WHERE name IS NOT NULL AND state <> 'deleting';
CREATE INDEX sessions_by_account ON sessions (account, created_at DESC, id);
CREATE INDEX sessions_by_image ON sessions (image, account);
CREATE INDEX sessions_by_change ON sessions (changed);

-- How many sessions an account has, without the deleting ones.
CREATE TABLE session_counts (
  account  text COLLATE "C" PRIMARY KEY,
  sessions bigint NOT NULL
);

-- How many sessions are in each state: the sum of these rows. A session's id chooses the row, so that changes of different
-- sessions seldom wait for each other.
CREATE TABLE state_counts (
  shard        integer PRIMARY KEY,
  active       bigint NOT NULL DEFAULT 0,
  idle         bigint NOT NULL DEFAULT 0,
  "deep-sleep" bigint NOT NULL DEFAULT 0,
  deleting     bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

INSERT INTO state_counts (shard) SELECT generate_series(0, 63);

CREATE FUNCTION count_sessions() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  before text := CASE WHEN TG_OP <> 'INSERT' THEN OLD.state END;
  since text := CASE WHEN TG_OP <> 'DELETE' THEN NEW.state END;
  session text := CASE WHEN TG_OP = 'DELETE' THEN OLD.id ELSE NEW.id END;
  owner text := CASE WHEN TG_OP = 'DELETE' THEN OLD.account ELSE NEW.account END;
  more integer := coalesce((since <> 'deleting')::int, 0) - coalesce((before <> 'deleting')::int, 0);
BEGIN
  IF before IS NOT DISTINCT FROM since THEN
    RETURN NULL;
  END IF;
  UPDATE state_counts
  SET active = active + coalesce((since = 'active')::int, 0) - coalesce((before = 'active')::int, 0),
      idle = idle + coalesce((since = 'idle')::int, 0) - coalesce((before = 'idle')::int, 0),
      "deep-sleep" = "deep-sleep" + coalesce((since = 'deep-sleep')::int, 0) - coalesce((before = 'deep-sleep')::int, 0),
      deleting = deleting + coalesce((since = 'deleting')::int, 0) - coalesce((before = 'deleting')::int, 0)
  WHERE shard = (hashtext(session) & 63);
  IF more <> 0 THEN
    INSERT INTO session_counts VALUES (owner, more)
    ON CONFLICT (account) DO UPDATE SET sessions = session_counts.sessions + excluded.sessions;
  END IF;
  RETURN NULL;
END
$$;

CREATE TRIGGER sessions_counted AFTER INSERT OR DELETE OR UPDATE OF state ON sessions
FOR EACH ROW EXECUTE FUNCTION count_sessions();

CREATE TABLE answers (
  account     text COLLATE "C" NOT NULL,
  key         text COLLATE "C" NOT NULL,
  fingerprint text NOT NULL,
  status      integer NOT NULL,
  created_at  bigint NOT NULL,
  headers     text NOT NULL,
  packed      boolean NOT NULL, -- body is compressed by zlib
  body        bytea NOT NULL,
  PRIMARY KEY (account, key)
);

CREATE INDEX answers_by_age ON answers (created_at);

CREATE TABLE preview_tokens (
  hash       text COLLATE "C" PRIMARY KEY,
  session    text COLLATE "C" NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
  port       integer, -- NULL: every port
  created_at bigint NOT NULL,
  expires_at bigint NOT NULL
);

CREATE INDEX preview_tokens_by_session ON preview_tokens (session, expires_at);
CREATE INDEX preview_tokens_by_end ON preview_tokens (expires_at);

-- Names of images. An account's name hides the operator's, whose account is ''.
CREATE TABLE images (
  account    text COLLATE "C" NOT NULL,
  name       text COLLATE "C" NOT NULL,
  image      text COLLATE "C" NOT NULL,
  size       bigint NOT NULL,
  created_at bigint NOT NULL,
  PRIMARY KEY (account, name)
);

CREATE INDEX images_by_image ON images (image);

CREATE TABLE layers (
  id         text COLLATE "C" PRIMARY KEY,
  account    text COLLATE "C" NOT NULL,
  image      text COLLATE "C" NOT NULL,
  size       bigint NOT NULL,
  created_at bigint NOT NULL,
  key        text NOT NULL,
  saved      text,
  fork       text COLLATE "C" NOT NULL -- '': no fork needs it
);

CREATE INDEX layers_by_account ON layers (account, created_at, id);
CREATE UNIQUE INDEX layers_by_fork ON layers (account, fork) WHERE fork <> '';
CREATE INDEX layers_by_image ON layers (image, account);

-- `arrival` is the order of those of one second.
CREATE TABLE snapshots (
  id           text COLLATE "C" PRIMARY KEY,
  account      text COLLATE "C" NOT NULL,
  session      text COLLATE "C" NOT NULL,
  layer        text COLLATE "C" NOT NULL REFERENCES layers (id),
  image        text COLLATE "C" NOT NULL,
  image_name   text NOT NULL,
  size         bigint NOT NULL,
  created_at   bigint NOT NULL,
  expires_at   bigint, -- NULL: never
  name         text COLLATE "C",
  metadata     text NOT NULL,
  is_automatic boolean NOT NULL,
  arrival      bigint GENERATED ALWAYS AS IDENTITY
);

CREATE INDEX snapshots_by_account ON snapshots (account, created_at DESC, arrival DESC);
CREATE INDEX snapshots_by_session ON snapshots (session);
CREATE INDEX snapshots_by_layer ON snapshots (layer);
CREATE INDEX snapshots_by_end ON snapshots (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX snapshots_by_image ON snapshots (image, account);

CREATE TABLE made_images (
  id         text COLLATE "C" PRIMARY KEY,
  base       text COLLATE "C" NOT NULL,
  layer      text COLLATE "C" NOT NULL REFERENCES layers (id),
  env        text NOT NULL,
  size       bigint NOT NULL,
  created_at bigint NOT NULL
);

CREATE INDEX made_images_by_layer ON made_images (layer);
CREATE INDEX made_images_by_base ON made_images (base);

-- Usage: times are Unix milliseconds. The columns of amounts are those of `usage.Amounts`.
CREATE TABLE usage_open (
  session  text COLLATE "C" PRIMARY KEY,
  account  text COLLATE "C" NOT NULL,
  ordinal  bigint NOT NULL,
  state    text NOT NULL,
  began_at bigint NOT NULL,
  noted_at bigint NOT NULL,
  boot     text NOT NULL,
  steady   bigint NOT NULL,
  amounts  text NOT NULL,
  counters text, -- NULL: not known
  disk     bigint NOT NULL, -- bytes
  archived bigint NOT NULL, -- bytes
  server   text NOT NULL,
  runs     bigint NOT NULL
) WITH (fillfactor = 80);

-- `number` counts those of an account without a gap, in the order of the commits: the row in `usage_numbers` is locked
-- from the moment when the number is taken until the commit.
CREATE TABLE usage_windows (
  account    text COLLATE "C" NOT NULL,
  number     bigint NOT NULL,
  session    text COLLATE "C" NOT NULL,
  ordinal    bigint NOT NULL,
  state      text NOT NULL,
  began_at   bigint NOT NULL,
  ended_at   bigint NOT NULL,
  active     bigint NOT NULL,
  idle       bigint NOT NULL,
  deep_sleep bigint NOT NULL,
  cpu        bigint NOT NULL,
  memory     bigint NOT NULL,
  disk       bigint NOT NULL,
  archived   bigint NOT NULL,
  bytes_out  bigint NOT NULL,
  executions bigint NOT NULL,
  PRIMARY KEY (account, number)
);

CREATE INDEX usage_windows_by_end ON usage_windows (ended_at);

CREATE TABLE usage_numbers (
  account text COLLATE "C" PRIMARY KEY,
  number  bigint NOT NULL
);

-- `day` and `month` count from January 1970 in UTC. Of session '': the whole account.
CREATE TABLE usage_days (
  account    text COLLATE "C" NOT NULL,
  session    text COLLATE "C" NOT NULL,
  day        bigint NOT NULL,
  active     bigint NOT NULL,
  idle       bigint NOT NULL,
  deep_sleep bigint NOT NULL,
  cpu        bigint NOT NULL,
  memory     bigint NOT NULL,
  disk       bigint NOT NULL,
  archived   bigint NOT NULL,
  bytes_out  bigint NOT NULL,
  executions bigint NOT NULL,
  PRIMARY KEY (account, session, day)
);

CREATE INDEX usage_days_by_day ON usage_days (day);

CREATE TABLE usage_months (
  account    text COLLATE "C" NOT NULL,
  month      bigint NOT NULL,
  session    text COLLATE "C" NOT NULL,
  active     bigint NOT NULL,
  idle       bigint NOT NULL,
  deep_sleep bigint NOT NULL,
  cpu        bigint NOT NULL,
  memory     bigint NOT NULL,
  disk       bigint NOT NULL,
  archived   bigint NOT NULL,
  bytes_out  bigint NOT NULL,
  executions bigint NOT NULL,
  PRIMARY KEY (month, account, session)
);

CREATE TABLE webhooks (
  id            text COLLATE "C" PRIMARY KEY,
  account       text COLLATE "C" NOT NULL,
  url           text NOT NULL,
  types         text, -- a JSON array; NULL: all
  secrets       text NOT NULL,
  created_at    bigint NOT NULL,
  off           text CHECK (off IN ('asked', 'failing', 'gone')), -- NULL: it is on
  failing_since bigint,
  version       bigint NOT NULL,
  redeliveries  bigint NOT NULL DEFAULT 0,    -- how often deliveries of it were asked for again
  removed       boolean NOT NULL DEFAULT false -- off for good, only its id is left, and it goes after its deliveries
);

CREATE INDEX webhooks_by_account ON webhooks (account, created_at, id) WHERE NOT removed;
CREATE INDEX webhooks_that_get ON webhooks (account) WHERE off IS NULL; -- an event of the account
CREATE INDEX webhooks_on ON webhooks (created_at, id) WHERE off IS NULL;
CREATE INDEX webhooks_off ON webhooks (off) WHERE off IS NOT NULL AND NOT removed;
CREATE INDEX webhooks_removed ON webhooks (id) WHERE removed;

-- Events as changes store them. `number_events` moves them to `events`. `sole`: the one webhook that gets a test.
CREATE TABLE unnumbered_events (
  arrival bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  id      text NOT NULL,
  account text COLLATE "C" NOT NULL,
  type    text NOT NULL,
  time    bigint NOT NULL,
  session text COLLATE "C",
  data    text NOT NULL,
  actor   text NOT NULL,
  request text,
  key     text,
  address text,
  sole    text COLLATE "C"
);

CREATE TABLE events (
  seq     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  id      text NOT NULL,
  account text COLLATE "C" NOT NULL,
  type    text NOT NULL,
  time    bigint NOT NULL,
  session text COLLATE "C",
  data    text NOT NULL,
  actor   text NOT NULL,
  request text,
  key     text,
  address text
);

CREATE INDEX events_by_account ON events (account, seq);
CREATE INDEX events_by_type ON events (account, type, seq);
CREATE INDEX events_by_session ON events (session, seq) WHERE session IS NOT NULL;
CREATE INDEX events_by_session_type ON events (session, type, seq) WHERE session IS NOT NULL;

CREATE TABLE event_counts (
  account text COLLATE "C" PRIMARY KEY,
  events  bigint NOT NULL
);

CREATE TABLE deliveries (
  id       text COLLATE "C" PRIMARY KEY,
  webhook  text COLLATE "C" NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
  event    bigint NOT NULL REFERENCES events (seq) ON DELETE CASCADE,
  state    text NOT NULL CHECK (state IN ('pending', 'delivered', 'failed')),
  attempts integer NOT NULL,
  due_at   bigint NOT NULL,
  tried_at bigint,
  status   integer, -- of the last answer
  failure  text,    -- of the last attempt, in words
  session  text COLLATE "C", -- of the event
  redelivery bigint NOT NULL DEFAULT 0 -- the number of the last time that it was asked for again
);

CREATE INDEX deliveries_by_webhook ON deliveries (webhook, event);
CREATE INDEX deliveries_by_event ON deliveries (event);
CREATE INDEX deliveries_due ON deliveries (webhook, due_at, event, session) INCLUDE (id) WHERE state = 'pending';
CREATE INDEX deliveries_failed_once ON deliveries (webhook, session, event)
WHERE state = 'pending' AND attempts = 1;

-- Numbers the events that have committed, and adds their deliveries. Whoever numbers holds a lock until the commit, so
-- each numbering sees all of those before it, and numbers grow in the order of commits. Changes take no lock for it.
CREATE FUNCTION number_events() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM unnumbered_events) THEN
    RETURN;
  END IF;
  PERFORM pg_advisory_xact_lock(7097014860201001);
  WITH taken AS (
    DELETE FROM unnumbered_events RETURNING *
  ), numbered AS (
    INSERT INTO events (id, account, type, time, session, data, actor, request, key, address)
    SELECT id, account, type, time, session, data, actor, request, key, address FROM taken ORDER BY arrival
    RETURNING seq, id, account, type, time, session
  ), counted AS (
    INSERT INTO event_counts (account, events)
    SELECT account, count(*) FROM numbered GROUP BY account ORDER BY account
    ON CONFLICT (account) DO UPDATE SET events = event_counts.events + excluded.events
  )
  INSERT INTO deliveries (id, webhook, event, state, attempts, due_at, session)
  SELECT 'dlv_' || left(replace(gen_random_uuid()::text, '-', ''), 18), webhooks.id, seq, 'pending', 0, time, session
  FROM numbered
  JOIN webhooks ON webhooks.account IN (numbered.account, '') AND webhooks.off IS NULL
  WHERE CASE
    WHEN numbered.type = 'webhook.test' THEN
      webhooks.id = coalesce((SELECT sole FROM taken WHERE taken.id = numbered.id LIMIT 1), webhooks.id)
    ELSE webhooks.types IS NULL OR webhooks.types::jsonb ? numbered.type
  END;
END
$$;
