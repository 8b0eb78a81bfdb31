-- name: lock_noted
SELECT id, state, sandbox FROM sessions WHERE id = ANY (%(ids)s::text[]) AND host = %(me)s ORDER BY id FOR NO KEY UPDATE

-- name: open_windows
SELECT * FROM usage_open WHERE session = ANY (%(ids)s::text[])

-- name: put_open
INSERT INTO usage_open (session, account, ordinal, state, began_at, noted_at, boot, steady, amounts, counters, disk,
                        archived, server, runs)
VALUES (%(session)s, %(account)s, %(ordinal)s, %(state)s, %(began_at)s, %(noted_at)s, %(boot)s, %(steady)s,
        %(amounts)s, %(counters)s, %(disk)s, %(archived)s, %(server)s, %(runs)s)
ON CONFLICT (session) DO UPDATE
SET account = excluded.account, ordinal = excluded.ordinal, state = excluded.state, began_at = excluded.began_at,
    noted_at = excluded.noted_at, boot = excluded.boot, steady = excluded.steady, amounts = excluded.amounts,
    counters = excluded.counters, disk = excluded.disk, archived = excluded.archived, server = excluded.server,
    runs = excluded.runs

-- name: end_open
DELETE FROM usage_open WHERE session = %(session)s

-- name: next_number
INSERT INTO usage_numbers VALUES (%(account)s, 1)
ON CONFLICT (account) DO UPDATE SET number = usage_numbers.number + 1
RETURNING number

-- name: add_window
INSERT INTO usage_windows (account, number, session, ordinal, state, began_at, ended_at, active, idle, deep_sleep, cpu,
                           memory, disk, archived, bytes_out, executions)
VALUES (%(account)s, %(number)s, %(session)s, %(ordinal)s, %(state)s, %(began_at)s, %(ended_at)s, %(active)s, %(idle)s,
        %(deep_sleep)s, %(cpu)s, %(memory)s, %(disk)s, %(archived)s, %(bytes_out)s, %(executions)s)

-- name: add_to_day
INSERT INTO usage_days (account, session, day, active, idle, deep_sleep, cpu, memory, disk, archived, bytes_out,
                        executions)
VALUES (%(account)s, %(session)s, %(day)s, %(active)s, %(idle)s, %(deep_sleep)s, %(cpu)s, %(memory)s, %(disk)s,
        %(archived)s, %(bytes_out)s, %(executions)s)
ON CONFLICT (account, session, day) DO UPDATE
SET active = usage_days.active + excluded.active, idle = usage_days.idle + excluded.idle,
    deep_sleep = usage_days.deep_sleep + excluded.deep_sleep, cpu = usage_days.cpu + excluded.cpu,
    memory = usage_days.memory + excluded.memory, disk = usage_days.disk + excluded.disk,
    archived = usage_days.archived + excluded.archived, bytes_out = usage_days.bytes_out + excluded.bytes_out,
    executions = usage_days.executions + excluded.executions

-- name: add_to_month
INSERT INTO usage_months (account, session, month, active, idle, deep_sleep, cpu, memory, disk, archived, bytes_out,
                          executions)
VALUES (%(account)s, %(session)s, %(month)s, %(active)s, %(idle)s, %(deep_sleep)s, %(cpu)s, %(memory)s, %(disk)s,
        %(archived)s, %(bytes_out)s, %(executions)s)
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
