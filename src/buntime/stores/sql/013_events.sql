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
