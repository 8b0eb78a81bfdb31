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

INSERT INTO usage_months
SELECT account, 12 * (strftime('%Y', day * 86400, 'unixepoch') - 1970) + strftime('%m', day * 86400, 'unixepoch') - 1,
  session, sum(active), sum(idle), sum(deep_sleep), sum(cpu), sum(memory), sum(disk), sum(archived), sum(bytes_out),
  sum(executions)
FROM usage_days WHERE session <> '' GROUP BY 1, 2, 3;
