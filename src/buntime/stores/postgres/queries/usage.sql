-- name: lock_noted
SELECT id, state, sandbox FROM sessions WHERE id = ANY (%(ids)s::text[]) AND host = %(me)s ORDER BY id FOR NO KEY UPDATE

-- name: open_windows
SELECT * FROM usage_open WHERE session = ANY (%(ids)s::text[])

-- name: put_open
INSERT INTO usage_open (session, account, ordinal, state, began_at, noted_at, boot, steady, amounts, counters, disk,
                        archived, server, runs)
SELECT * FROM unnest(
  %(session)s::text[], %(account)s::text[], %(ordinal)s::bigint[], %(state)s::text[],
  %(began_at)s::bigint[], %(noted_at)s::bigint[], %(boot)s::text[], %(steady)s::bigint[],
  %(amounts)s::text[], %(counters)s::text[], %(disk)s::bigint[], %(archived)s::bigint[],
  %(server)s::text[], %(runs)s::bigint[]
)
ON CONFLICT (session) DO UPDATE
SET account = excluded.account, ordinal = excluded.ordinal, state = excluded.state, began_at = excluded.began_at,
    noted_at = excluded.noted_at, boot = excluded.boot, steady = excluded.steady, amounts = excluded.amounts,
    counters = excluded.counters, disk = excluded.disk, archived = excluded.archived, server = excluded.server,
    runs = excluded.runs

-- name: end_open
DELETE FROM usage_open WHERE session = %(session)s

-- name: add_windows
-- Each account numbers its windows in the order in which they are given.
WITH closed AS (
  SELECT *, row_number() OVER (PARTITION BY account ORDER BY place) AS rank, count(*) OVER (PARTITION BY account) AS many
  FROM unnest(
    %(account)s::text[], %(session)s::text[], %(ordinal)s::bigint[], %(state)s::text[],
    %(began_at)s::bigint[], %(ended_at)s::bigint[], %(active)s::bigint[], %(idle)s::bigint[],
    %(deep_sleep)s::bigint[], %(cpu)s::bigint[], %(memory)s::bigint[], %(disk)s::bigint[],
    %(archived)s::bigint[], %(bytes_out)s::bigint[], %(executions)s::bigint[]
  ) WITH ORDINALITY AS given (account, session, ordinal, state, began_at, ended_at, active, idle, deep_sleep, cpu, memory,
                              disk, archived, bytes_out, executions, place)
), numbered AS (
  INSERT INTO usage_numbers SELECT account, count(*) FROM closed GROUP BY account ORDER BY account COLLATE "C"
  ON CONFLICT (account) DO UPDATE SET number = usage_numbers.number + excluded.number
  RETURNING account, number
)
INSERT INTO usage_windows (account, number, session, ordinal, state, began_at, ended_at, active, idle, deep_sleep, cpu,
                           memory, disk, archived, bytes_out, executions)
SELECT account, number - many + rank, session, ordinal, state, began_at, ended_at, active, idle, deep_sleep, cpu, memory,
       disk, archived, bytes_out, executions
FROM closed JOIN numbered USING (account)

-- name: add_to_days
INSERT INTO usage_days (account, session, day, active, idle, deep_sleep, cpu, memory, disk, archived, bytes_out,
                        executions)
SELECT * FROM unnest(
  %(account)s::text[], %(session)s::text[], %(day)s::bigint[], %(active)s::bigint[],
  %(idle)s::bigint[], %(deep_sleep)s::bigint[], %(cpu)s::bigint[], %(memory)s::bigint[],
  %(disk)s::bigint[], %(archived)s::bigint[], %(bytes_out)s::bigint[], %(executions)s::bigint[]
)
ON CONFLICT (account, session, day) DO UPDATE
SET active = usage_days.active + excluded.active, idle = usage_days.idle + excluded.idle,
    deep_sleep = usage_days.deep_sleep + excluded.deep_sleep, cpu = usage_days.cpu + excluded.cpu,
    memory = usage_days.memory + excluded.memory, disk = usage_days.disk + excluded.disk,
    archived = usage_days.archived + excluded.archived, bytes_out = usage_days.bytes_out + excluded.bytes_out,
    executions = usage_days.executions + excluded.executions

-- name: add_to_months
INSERT INTO usage_months (account, session, month, active, idle, deep_sleep, cpu, memory, disk, archived, bytes_out,
                          executions)
SELECT * FROM unnest(
  %(account)s::text[], %(session)s::text[], %(month)s::bigint[], %(active)s::bigint[],
  %(idle)s::bigint[], %(deep_sleep)s::bigint[], %(cpu)s::bigint[], %(memory)s::bigint[],
  %(disk)s::bigint[], %(archived)s::bigint[], %(bytes_out)s::bigint[], %(executions)s::bigint[]
)
ON CONFLICT (month, account, session) DO UPDATE
SET active = usage_months.active + excluded.active, idle = usage_months.idle + excluded.idle,
    deep_sleep = usage_months.deep_sleep + excluded.deep_sleep, cpu = usage_months.cpu + excluded.cpu,
    memory = usage_months.memory + excluded.memory, disk = usage_months.disk + excluded.disk,
    archived = usage_months.archived + excluded.archived, bytes_out = usage_months.bytes_out + excluded.bytes_out,
    executions = usage_months.executions + excluded.executions

-- name: list_windows
SELECT * FROM usage_windows WHERE account = %(account)s AND number > %(after)s ORDER BY number LIMIT %(limit)s

-- name: newest_number
SELECT coalesce((SELECT number FROM usage_numbers WHERE account = %(account)s), 0) AS number

-- name: usage_by_day
SELECT * FROM usage_days
WHERE account = %(account)s AND session = %(session)s AND day BETWEEN %(first)s AND %(last)s ORDER BY day

-- name: sessions_of_month
SELECT session FROM usage_months
WHERE account = %(account)s AND month = ANY (%(months)s::bigint[]) AND session > %(after)s
GROUP BY session ORDER BY session LIMIT %(limit)s

-- name: usage_of_months
SELECT session, sum(active) AS active, sum(idle) AS idle, sum(deep_sleep) AS deep_sleep, sum(cpu) AS cpu,
       sum(memory) AS memory, sum(disk) AS disk, sum(archived) AS archived, sum(bytes_out) AS bytes_out,
       sum(executions) AS executions
FROM usage_months
WHERE account = %(account)s AND month = ANY (%(months)s::bigint[]) AND session BETWEEN %(first)s AND %(last)s
GROUP BY session

-- name: usage_of_days
SELECT session, sum(active) AS active, sum(idle) AS idle, sum(deep_sleep) AS deep_sleep, sum(cpu) AS cpu,
       sum(memory) AS memory, sum(disk) AS disk, sum(archived) AS archived, sum(bytes_out) AS bytes_out,
       sum(executions) AS executions
FROM usage_days
WHERE account = %(account)s AND session = ANY (%(sessions)s::text[]) AND day BETWEEN %(first)s AND %(last)s
GROUP BY session

-- name: newest_window_end
SELECT max(ended_at) AS ended_at FROM usage_windows

-- name: drop_windows
DELETE FROM usage_windows
WHERE (account, number) IN (SELECT account, number FROM usage_windows WHERE ended_at < %(before)s LIMIT %(most)s)

-- name: drop_days
DELETE FROM usage_days
WHERE (account, session, day) IN (SELECT account, session, day FROM usage_days WHERE day < %(before)s LIMIT %(most)s)

-- name: drop_months
DELETE FROM usage_months
WHERE (month, account, session) IN (
  SELECT month, account, session FROM usage_months WHERE month < %(before)s LIMIT %(most)s
)
