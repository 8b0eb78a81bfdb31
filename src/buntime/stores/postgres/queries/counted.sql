-- Counts over all hosts: see `counted.py`. Rows are locked in the order of their names.

-- name: take_shares
-- Begins a new minute where the row has an earlier one. A transaction that waited for the row may bring the minute
-- before: it counts in the row's. A row far ahead is of a clock that was set back.
INSERT INTO rates AS r (name, minute, most, every, given)
SELECT name, floor(extract(epoch FROM clock_timestamp()) / 60), most, least(number, most), least(number, most)
FROM unnest(%(names)s::text[], %(limits)s::bigint[], %(numbers)s::bigint[]) AS wanted (name, most, number)
ORDER BY name COLLATE "C"
ON CONFLICT (name) DO UPDATE SET
  most = excluded.most,
  minute = CASE WHEN excluded.minute BETWEEN r.minute - 1 AND r.minute THEN r.minute ELSE excluded.minute END,
  given = CASE WHEN excluded.minute BETWEEN r.minute - 1 AND r.minute
    THEN greatest(least(excluded.given, excluded.most - r.every), 0) ELSE excluded.given END,
  every = CASE WHEN excluded.minute BETWEEN r.minute - 1 AND r.minute
    THEN r.every + greatest(least(excluded.given, excluded.most - r.every), 0) ELSE excluded.given END
RETURNING name, minute, given, every, ((minute + 1) * 60 - extract(epoch FROM clock_timestamp()))::float8 AS left

-- name: give_back
WITH locked AS (SELECT name FROM rates WHERE name = ANY(%(names)s) ORDER BY name FOR UPDATE)
UPDATE rates SET every = greatest(every - unused.number, 0)
FROM unnest(%(names)s::text[], %(minutes)s::bigint[], %(numbers)s::bigint[]) AS unused (name, minute, number), locked
WHERE rates.name = locked.name AND unused.name = rates.name AND unused.minute = rates.minute

-- name: drop_counted
-- Minutes that are over, and places on hosts that were removed.
WITH removed AS (
  DELETE FROM places WHERE NOT EXISTS (SELECT FROM hosts WHERE id = host)
), gone AS (
  DELETE FROM rates WHERE minute < floor(extract(epoch FROM clock_timestamp()) / 60) - 10 RETURNING name
)
SELECT count(*) AS dropped FROM gone

-- name: lock_places
SELECT pg_advisory_xact_lock(hashtextextended(%(account)s || ' ' || %(kind)s, 0))

-- name: take_places
-- Of the places asked for, as many as the other hosts leave. They count while nobody has taken over from them.
WITH elsewhere AS (
  SELECT coalesce(sum(used), 0)::bigint AS used FROM places JOIN hosts ON id = host AND NOT taken_over
  WHERE account = %(account)s AND kind = %(kind)s AND host <> %(host)s AND places.incarnation = hosts.incarnation
), got AS (
  SELECT least(%(number)s::bigint, greatest(%(limit)s::bigint - elsewhere.used - %(used)s::bigint, 0)) AS number
  FROM elsewhere
)
INSERT INTO places AS p (account, kind, host, incarnation, used)
SELECT %(account)s, %(kind)s, %(host)s, %(incarnation)s, %(used)s::bigint + number FROM got
ON CONFLICT (account, kind, host) DO UPDATE SET incarnation = excluded.incarnation, used = excluded.used
RETURNING used - %(used)s::bigint AS number

-- name: set_places
INSERT INTO places (account, kind, host, incarnation, used)
SELECT account, kind, %(host)s, %(incarnation)s, used
FROM unnest(%(accounts)s::text[], %(kinds)s::text[], %(used)s::bigint[]) AS told (account, kind, used)
ON CONFLICT (account, kind, host) DO UPDATE SET incarnation = excluded.incarnation, used = excluded.used

-- name: drop_places
-- Of this host, those where nothing is open, and all of earlier incarnations.
DELETE FROM places WHERE host = %(host)s AND (used = 0 OR incarnation < %(incarnation)s)

-- name: awake_here
SELECT account, sandbox FROM sessions WHERE host = %(me)s AND state IN ('active', 'idle')
