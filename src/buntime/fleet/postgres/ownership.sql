-- Each statement of ownership.py, by its name. They need the columns id, host, epoch, version, state and archived of
-- `sessions`, which is the store's table.

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
)
UPDATE sessions SET host = %(host)s, epoch = epoch + 1, version = version + 1
WHERE id = %(session)s AND state = 'deep-sleep' AND archived
  AND (host IS NULL OR host = %(host)s OR host IN (SELECT id FROM lost))
RETURNING epoch

-- name: look
SELECT sessions.host, sessions.epoch, sessions.state, sessions.archived, hosts.address,
  coalesce(hosts.taken_over, false) AS taken_over
FROM sessions LEFT JOIN hosts ON hosts.id = sessions.host
WHERE sessions.id = %(session)s

-- name: report
SELECT id, host, epoch, state FROM sessions
WHERE id = ANY(%(held)s) OR (host = %(host)s AND state IN ('active', 'idle'))
