-- What happened in accounts. `seq` is the order of commits, and no number is used twice: a reader that has seen one
-- has seen all before it. `data` is a JSON object; actor, request, key and address are the cause.
CREATE TABLE events (
  seq     INTEGER PRIMARY KEY AUTOINCREMENT,
  id      TEXT NOT NULL,
  account TEXT NOT NULL,
  type    TEXT NOT NULL,
  time    INTEGER NOT NULL,
  session TEXT,
  data    TEXT NOT NULL,
  actor   TEXT NOT NULL,
  request TEXT,
  key     TEXT,
  address TEXT
) STRICT;

CREATE INDEX events_by_account ON events (account);
CREATE INDEX events_by_type ON events (account, type);
CREATE INDEX events_by_session ON events (session) WHERE session IS NOT NULL;

-- How many events of each account there are, so that finding accounts with too many does not read them all.
CREATE TABLE event_counts (
  account TEXT PRIMARY KEY,
  events  INTEGER NOT NULL
) STRICT;

CREATE TRIGGER events_count_added AFTER INSERT ON events BEGIN
  INSERT INTO event_counts (account, events) VALUES (NEW.account, 1)
  ON CONFLICT (account) DO UPDATE SET events = events + 1;
END;

CREATE TRIGGER events_count_removed AFTER DELETE ON events BEGIN
  UPDATE event_counts SET events = events - 1 WHERE account = OLD.account;
END;

-- Where events are sent. `types` is a JSON array, NULL for all; `secrets` one of objects with `sealed` and `until`.
-- The account of the operator's own endpoint is '': it gets the events of all accounts.
CREATE TABLE webhooks (
  id            TEXT PRIMARY KEY,
  account       TEXT NOT NULL,
  url           TEXT NOT NULL,
  types         TEXT,
  secrets       TEXT NOT NULL,
  created_at    INTEGER NOT NULL,
  off           TEXT CHECK (off IN ('asked', 'failing', 'gone')), -- NULL: it is on
  failing_since INTEGER,
  version       INTEGER NOT NULL
) STRICT;

CREATE INDEX webhooks_by_account ON webhooks (account, created_at, id);

CREATE TABLE deliveries (
  id       TEXT PRIMARY KEY,
  webhook  TEXT NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
  event    INTEGER NOT NULL REFERENCES events (seq) ON DELETE CASCADE,
  state    TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'failed')),
  attempts INTEGER NOT NULL,
  due_at   INTEGER NOT NULL,
  tried_at INTEGER,
  status   INTEGER, -- of the last answer
  failure  TEXT,    -- of the last attempt, in words
  session  TEXT     -- of the event: deliveries of one session go in order, so a later one waits if an earlier one failed
) STRICT;

CREATE INDEX deliveries_by_webhook ON deliveries (webhook, event);
CREATE INDEX deliveries_by_event ON deliveries (event);
CREATE INDEX deliveries_due ON deliveries (webhook, due_at, event, session) WHERE state = 'pending';

CREATE INDEX deliveries_failed_once ON deliveries (webhook, session, event)
WHERE state = 'pending' AND attempts = 1;

-- Whoever adds an event, its deliveries are in the same transaction. A test goes to the one endpoint that its data names,
-- whatever types that asked for.
CREATE TRIGGER events_to_deliver AFTER INSERT ON events BEGIN
  INSERT INTO deliveries (id, webhook, event, state, attempts, due_at, session)
  SELECT 'dlv_' || lower(hex(randomblob(9))), id, NEW.seq, 'pending', 0, NEW.time, NEW.session
  FROM webhooks
  WHERE account IN (NEW.account, '') AND off IS NULL
    AND CASE WHEN NEW.type = 'webhook.test' THEN id = coalesce(json_extract(NEW.data, '$.webhookId'), id)
        ELSE types IS NULL OR EXISTS (SELECT 1 FROM json_each(types) WHERE value = NEW.type) END;
END;
