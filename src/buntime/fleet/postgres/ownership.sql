-- Each statement of ownership.py, by its name.

-- name: require
SELECT set_config('idle_in_transaction_session_timeout', %(idle)s, true) FROM hosts
WHERE id = %(host)s AND incarnation = %(incarnation)s AND lease_until > clock_timestamp()
FOR KEY SHARE

-- name: claim
-- Nothing is inferred from a missing row: a host that is not in `hosts` is not lost.
WITH lost AS MATERIALIZED (
  SELECT id FROM hosts
  WHERE taken_over AND id = (SELECT host FROM sessions WHERE id = %(session)s)
  FOR KEY SHARE -- the lost host joins again before this statement, or after it has been committed
), before AS MATERIALIZED (
  SELECT * FROM sessions
  WHERE id = %(session)s AND state = 'deep-sleep' AND archived
    AND (host IN ('', %(host)s) OR host IN (SELECT id FROM lost))
  FOR UPDATE
), behind AS (
  INSERT INTO left_behind (volume, host, session, account, image, image_name, disk, changed)
  SELECT volume, host, id, account, image, image_name, (limits::json->>'disk')::bigint,
    -- such a session has lost its volume: if that is there again, it is newer than the archive
    coalesce((snapshot::json->>'is_checkpoint')::boolean, false)
  FROM before WHERE host <> ''
  ON CONFLICT (volume) DO NOTHING
)
UPDATE sessions SET host = %(host)s, epoch = sessions.epoch + 1, version = sessions.version + 1, volume = %(volume)s,
  changed = pg_current_xact_id()
FROM before WHERE sessions.id = before.id
RETURNING sessions.*

-- name: take
-- The same in any state, for a session whose newest files are lost with its host.
WITH lost AS MATERIALIZED (
  SELECT id FROM hosts
  WHERE taken_over AND id = (SELECT host FROM sessions WHERE id = %(session)s)
  FOR KEY SHARE
), before AS MATERIALIZED (
  SELECT * FROM sessions
  WHERE id = %(session)s AND (host = '' OR host IN (SELECT id FROM lost))
  FOR UPDATE
), behind AS (
  INSERT INTO left_behind (volume, host, session, account, image, image_name, disk, changed)
  SELECT volume, host, id, account, image, image_name, (limits::json->>'disk')::bigint,
    NOT (state = 'deep-sleep' AND archived) OR coalesce((snapshot::json->>'is_checkpoint')::boolean, false)
  FROM before WHERE host <> ''
  ON CONFLICT (volume) DO NOTHING
)
UPDATE sessions SET host = %(host)s, epoch = sessions.epoch + 1, version = sessions.version + 1, volume = %(volume)s,
  changed = pg_current_xact_id()
FROM before WHERE sessions.id = before.id
RETURNING sessions.*

-- name: look
SELECT nullif(sessions.host, '') AS host, sessions.epoch, sessions.state, sessions.archived, hosts.address,
  coalesce(hosts.taken_over, false) AS taken_over
FROM sessions LEFT JOIN hosts ON hosts.id = sessions.host
WHERE sessions.id = %(session)s

-- name: report
SELECT id, nullif(host, '') AS host, epoch, state, volume FROM sessions
WHERE id = ANY(%(held)s) OR (host = %(host)s AND state IN ('active', 'idle'))

-- name: adopt
-- What a server had that used this database alone.
UPDATE sessions SET host = %(host)s, version = version + 1, changed = pg_current_xact_id() WHERE host = 'local'
RETURNING id

-- name: strays
-- Sessions of nobody, or of a lost host, that must end. A host whose clock is ahead ends none early. Each part has an
-- index, and reads no session that need not end. The inner limit keeps the planner from joining all sessions.
WITH free AS MATERIALIZED (
  SELECT '' AS host UNION ALL SELECT id FROM hosts WHERE taken_over
), deleted AS MATERIALIZED (
  SELECT id FROM accounts JOIN session_counts ON session_counts.account = accounts.id
  WHERE status = 'deleted' AND session_counts.sessions > 0
)
SELECT id FROM (
  SELECT id, host, expires_at FROM sessions WHERE state = 'deleting'
  UNION
  SELECT id, host, expires_at FROM sessions
  WHERE expires_at <= (SELECT least(%(now)s, EXTRACT(EPOCH FROM clock_timestamp()))::bigint)
  UNION
  SELECT found.* FROM deleted, LATERAL (
    SELECT id, host, expires_at FROM sessions
    WHERE account = deleted.id AND host IN (SELECT host FROM free) LIMIT %(most)s
  ) AS found
) AS ending
WHERE host IN (SELECT host FROM free)
ORDER BY expires_at, id LIMIT %(most)s

-- name: left_behind
SELECT volume, session, account, image, image_name, disk, changed FROM left_behind
WHERE host = %(host)s ORDER BY at

-- name: forget_left
DELETE FROM left_behind WHERE volume = %(volume)s AND host = %(host)s
RETURNING volume

-- name: look_at_duty
SELECT host = %(host)s AND incarnation = %(incarnation)s AS mine,
  EXISTS (
    SELECT FROM hosts WHERE id = duties.host AND incarnation = duties.incarnation AND lease_until > clock_timestamp()
  ) AS held
FROM duties WHERE name = 'fleet'

-- name: take_duty
UPDATE duties SET host = %(host)s, incarnation = %(incarnation)s
WHERE name = 'fleet' AND NOT EXISTS (
  SELECT FROM hosts WHERE id = duties.host AND incarnation = duties.incarnation AND lease_until > clock_timestamp()
)
