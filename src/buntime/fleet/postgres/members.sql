-- Each statement of members.py, by its name.
--
-- A host's row is locked in two strengths. What a member writes holds FOR KEY SHARE on the row of each host that it
-- relies on (see ownership.sql). A renewal does not wait for that. What changes an incarnation takes FOR UPDATE, and so
-- waits until such writes are committed; those that come after it see the new incarnation. A host that is lost in the
-- middle of a transaction must hold no lock for long: therefore the limit on idle transactions.

-- name: lock
SELECT id, incarnation, renewals, taken_over, address,
  lease_until > clock_timestamp() AS is_leased,
  -- a lease that ends later than one that begins now is of a clock that was set back
  lease_until > clock_timestamp() AND lease_until <= clock_timestamp() + %(lease)s AS runs,
  set_config('idle_in_transaction_session_timeout', %(idle)s, true)
FROM hosts WHERE id = %(id)s FOR UPDATE

-- name: stand
-- Changes of a busy host always hold this lock, too: FOR UPDATE might never get its turn.
SELECT id, incarnation, lease_until > clock_timestamp() AS is_leased,
  set_config('idle_in_transaction_session_timeout', %(idle)s, true)
FROM hosts WHERE id = %(id)s FOR KEY SHARE

-- name: add
INSERT INTO hosts (id, incarnation, renewals, lease_until, taken_over, state, address, version, capacity, joined_at)
VALUES (%(id)s, %(after)s::bigint + 1, 0, clock_timestamp() + %(lease)s, false, 'active', %(address)s, %(version)s, %(capacity)s, clock_timestamp())
ON CONFLICT (id) DO NOTHING
RETURNING incarnation

-- name: join_again
UPDATE hosts SET incarnation = greatest(incarnation, %(after)s::bigint) + 1, renewals = 0,
  lease_until = clock_timestamp() + %(lease)s, taken_over = false, has_left = false, joined_at = clock_timestamp(), address = %(address)s, version = %(version)s, capacity = %(capacity)s
WHERE id = %(id)s
RETURNING incarnation

-- name: needs
-- The oldest version of the tables that a server must know.
SELECT coalesce(max(needs), 0) AS needs FROM buntime_schema

-- name: renew
UPDATE hosts SET lease_until = clock_timestamp() + %(lease)s, renewals = renewals + 1, capacity = %(capacity)s
WHERE id = %(id)s AND incarnation = %(incarnation)s AND lease_until > clock_timestamp()
RETURNING state

-- name: leave
UPDATE hosts SET incarnation = incarnation + 1, taken_over = true, has_left = true, lease_until = clock_timestamp()
WHERE id = %(id)s

-- name: give_up
UPDATE hosts SET incarnation = incarnation + 1, taken_over = true, lease_until = clock_timestamp()
WHERE id = %(id)s

-- name: now
SELECT EXTRACT(EPOCH FROM clock_timestamp())::float8 AS now

-- name: list
SELECT id, incarnation, renewals, EXTRACT(EPOCH FROM lease_until - clock_timestamp())::float8 AS lease_left, taken_over,
  state, address, version, capacity, EXTRACT(EPOCH FROM joined_at)::float8 AS joined_at, has_left,
  EXTRACT(EPOCH FROM drain_until - clock_timestamp())::float8 AS drain_left
FROM hosts ORDER BY id

-- name: mark
-- The server reads the time only where it drains.
UPDATE hosts SET state = %(state)s,
  drain_until = CASE WHEN %(state)s = 'draining' THEN clock_timestamp() + %(within)s::interval END
WHERE id = %(id)s

-- name: count_sessions
SELECT host, state, archived, count(*) AS sessions FROM sessions WHERE state <> 'deleting' GROUP BY host, state, archived

-- name: free_sessions
-- What the host had is nobody's from now on, with the epoch that it had: nobody has claimed it yet. If the host comes
-- back, it finds what it may still have among `left_behind`.
WITH behind AS (
  INSERT INTO left_behind (volume, host, session, account, image, image_name, disk, changed)
  SELECT volume, host, id, account, image, image_name, (limits::json->>'disk')::bigint,
    state IN ('active', 'idle') OR (state = 'deep-sleep' AND NOT archived)
      OR coalesce((snapshot::json->>'is_checkpoint')::boolean, false)
  FROM sessions WHERE host = %(id)s
  ON CONFLICT (volume) DO NOTHING
)
UPDATE sessions SET host = '', version = version + 1, changed = pg_current_xact_id() WHERE host = %(id)s

-- name: remove
DELETE FROM hosts WHERE id = %(id)s
