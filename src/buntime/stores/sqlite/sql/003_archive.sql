-- Where the snapshots of a session are and what they are sealed with. `snapshot` and `previous` hold JSON objects.
ALTER TABLE sessions ADD COLUMN key TEXT NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN snapshot TEXT;
ALTER TABLE sessions ADD COLUMN previous TEXT;
ALTER TABLE sessions ADD COLUMN archived INTEGER NOT NULL DEFAULT 0 CHECK (archived IN (0, 1));

-- How many sessions an account has, without the deleting ones: every create asks, so none is counted for it.
CREATE TABLE session_counts (
  account  TEXT PRIMARY KEY,
  sessions INTEGER NOT NULL CHECK (sessions >= 0)
) STRICT, WITHOUT ROWID;

INSERT INTO session_counts
SELECT account, count(*) FILTER (WHERE state <> 'deleting') FROM sessions GROUP BY account;

CREATE TRIGGER count_added AFTER INSERT ON sessions
BEGIN
  INSERT INTO session_counts VALUES (NEW.account, NEW.state <> 'deleting')
  ON CONFLICT (account) DO UPDATE SET sessions = sessions + excluded.sessions;
END;

CREATE TRIGGER count_changed AFTER UPDATE OF state ON sessions
WHEN (OLD.state = 'deleting') <> (NEW.state = 'deleting')
BEGIN
  UPDATE session_counts SET sessions = sessions + iif(NEW.state = 'deleting', -1, 1) WHERE account = NEW.account;
END;

CREATE TRIGGER count_removed AFTER DELETE ON sessions
WHEN OLD.state <> 'deleting'
BEGIN
  UPDATE session_counts SET sessions = sessions - 1 WHERE account = OLD.account;
END;

DROP INDEX sessions_by_account;
