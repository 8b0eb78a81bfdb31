-- Times are Unix milliseconds. `state` is that of a session. The nine columns of amounts are those of `usage.Amounts`.

-- The open window of each session that is not being deleted. `amounts` and `counters` hold JSON arrays.
CREATE TABLE usage_open (
  session     TEXT PRIMARY KEY,
  account     TEXT NOT NULL,
  ordinal     INTEGER NOT NULL,
  state       TEXT NOT NULL,
  began_at    INTEGER NOT NULL,
  noted_at    INTEGER NOT NULL,
  boot        TEXT NOT NULL,
  steady      INTEGER NOT NULL,
  amounts     TEXT NOT NULL,
  counters    TEXT, -- NULL: not known
  disk        INTEGER NOT NULL, -- bytes
  archived    INTEGER NOT NULL, -- bytes
  server      TEXT NOT NULL,
  runs        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Closed windows, which never change. `number` counts those of an account without a gap, in the order of the commits.
-- No reference to sessions: windows stay when the session is gone.
CREATE TABLE usage_windows (
  account     TEXT NOT NULL,
  number      INTEGER NOT NULL,
  session     TEXT NOT NULL,
  ordinal     INTEGER NOT NULL,
  state       TEXT NOT NULL,
  began_at    INTEGER NOT NULL,
  ended_at    INTEGER NOT NULL,
  active      INTEGER NOT NULL,
  idle        INTEGER NOT NULL,
  deep_sleep  INTEGER NOT NULL,
  cpu         INTEGER NOT NULL,
  memory      INTEGER NOT NULL,
  disk        INTEGER NOT NULL,
  archived    INTEGER NOT NULL,
  bytes_out   INTEGER NOT NULL,
  executions  INTEGER NOT NULL,
  PRIMARY KEY (account, number)
) STRICT, WITHOUT ROWID;

CREATE INDEX usage_windows_by_end ON usage_windows (ended_at);

-- The number of each account's last window. It stays when old windows are dropped.
CREATE TABLE usage_numbers (
  account     TEXT PRIMARY KEY,
  number      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What was noted, closed or not, by session and day. `day` counts from 1970 in UTC. Of session '': the whole account.
CREATE TABLE usage_days (
  account     TEXT NOT NULL,
  session     TEXT NOT NULL,
  day         INTEGER NOT NULL,
  active      INTEGER NOT NULL,
  idle        INTEGER NOT NULL,
  deep_sleep  INTEGER NOT NULL,
  cpu         INTEGER NOT NULL,
  memory      INTEGER NOT NULL,
  disk        INTEGER NOT NULL,
  archived    INTEGER NOT NULL,
  bytes_out   INTEGER NOT NULL,
  executions  INTEGER NOT NULL,
  PRIMARY KEY (account, session, day)
) STRICT, WITHOUT ROWID;

CREATE INDEX usage_days_by_day ON usage_days (day);

-- What `usage_days` has, by session and month. `month` counts from January 1970 in UTC. The sessions of one month are
-- next to each other, so that those of a year are found without a look at each of its days.
CREATE TABLE usage_months (
  account     TEXT NOT NULL,
  month       INTEGER NOT NULL,
  session     TEXT NOT NULL,
  active      INTEGER NOT NULL,
  idle        INTEGER NOT NULL,
  deep_sleep  INTEGER NOT NULL,
  cpu         INTEGER NOT NULL,
  memory      INTEGER NOT NULL,
  disk        INTEGER NOT NULL,
  archived    INTEGER NOT NULL,
  bytes_out   INTEGER NOT NULL,
  executions  INTEGER NOT NULL,
  PRIMARY KEY (month, account, session)
) STRICT, WITHOUT ROWID;
