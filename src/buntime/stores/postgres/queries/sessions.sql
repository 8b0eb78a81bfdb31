-- name: add_session
-- A whole transaction in one statement: what each create costs on the event loop is mostly how many it sends. The lock
-- timeout is set before `require_place` waits, and its questions see what was committed while it waited.
WITH marked AS (
  INSERT INTO changes (id, made) VALUES (%(change)s, true) RETURNING set_config('lock_timeout', '5s', true)
), allowed AS MATERIALIZED (
  SELECT require_member(%(host)s, %(incarnation)s),
         require_place(%(account)s, %(id)s, %(name)s, %(limit)s, %(image)s, %(image_name)s, %(is_default)s)
  FROM marked
), added AS (
  INSERT INTO sessions (id, account, state, created_at, expires_at, last_active, sandbox, volume, image, image_name,
                        made_of, host, epoch, version, on_wake, limits, metadata, preview, network, env, files,
                        processes, key, snapshot, previous, archived, name, checkpoint_every, idle_after,
                        deep_sleep_after, awake_while, services, changed)
  SELECT %(id)s, %(account)s, %(state)s, %(created_at)s, %(expires_at)s, %(last_active)s, %(sandbox)s, %(volume)s,
         %(image)s, %(image_name)s, %(made_of)s, %(host)s, %(epoch)s, %(version)s, %(on_wake)s, %(limits)s,
         %(metadata)s, %(preview)s, %(network)s, %(env)s, %(files)s, %(processes)s, %(key)s, %(snapshot)s,
         %(previous)s, %(archived)s, %(name)s, %(checkpoint_every)s, %(idle_after)s, %(deep_sleep_after)s,
         %(awake_while)s, %(services)s, pg_current_xact_id()
  FROM allowed
), opened AS (
  INSERT INTO usage_open (session, account, ordinal, state, began_at, noted_at, boot, steady, amounts, counters, disk,
                          archived, server, runs)
  SELECT first.* FROM allowed, json_to_recordset(%(opened)s) AS first (
    session text, account text, ordinal bigint, state text, began_at bigint, noted_at bigint, boot text, steady bigint,
    amounts text, counters text, disk bigint, archived bigint, server text, runs bigint
  )
), ended AS (
  DELETE FROM keys_in_use WHERE account = %(account)s AND key = %(answer_key)s AND host = %(host)s
), answered AS (
  INSERT INTO answers (account, key, fingerprint, status, created_at, headers, packed, body)
  SELECT %(account)s, %(answer_key)s, %(answer_fingerprint)s, %(answer_status)s, %(answer_created_at)s,
         %(answer_headers)s, %(answer_packed)s, %(answer_body)s
  FROM allowed WHERE %(answer_key)s IS NOT NULL
)
INSERT INTO unnumbered_events (id, account, type, time, session, data, actor, request, key, address, sole)
SELECT told.* FROM allowed, json_to_recordset(%(events)s) AS told (
  id text, account text, type text, time bigint, session text, data text, actor text, request text, key text,
  address text, sole text
)

-- name: change_session
UPDATE sessions
SET state = %(state)s, created_at = %(created_at)s, expires_at = %(expires_at)s,
    last_active = greatest(last_active, %(last_active)s), sandbox = %(sandbox)s, volume = %(volume)s,
    image = %(image)s, image_name = %(image_name)s, made_of = %(made_of)s, version = %(expected)s + 1, on_wake = %(on_wake)s, limits = %(limits)s, metadata = %(metadata)s,
    preview = %(preview)s, network = %(network)s, env = %(env)s, files = %(files)s, processes = %(processes)s,
    key = %(key)s, snapshot = %(snapshot)s, previous = %(previous)s, archived = %(archived)s, name = %(name)s,
    checkpoint_every = %(checkpoint_every)s, idle_after = %(idle_after)s, deep_sleep_after = %(deep_sleep_after)s,
    awake_while = %(awake_while)s, services = %(services)s, changed = pg_current_xact_id()
WHERE id = %(id)s AND version = %(expected)s AND host = %(me)s AND epoch = %(epoch)s
RETURNING last_active

-- name: owner_of
SELECT host, epoch FROM sessions WHERE id = %(id)s

-- name: release_session
-- A session of nobody has the host ''. Its epoch grows when it is claimed.
UPDATE sessions SET host = '', version = version + 1, changed = pg_current_xact_id()
WHERE id = %(id)s AND host = %(host)s AND host <> '' AND epoch = %(epoch)s AND state = 'deep-sleep' AND archived

-- name: touch_sessions
-- In the order of ids, so that two hosts never wait for each other.
UPDATE sessions SET last_active = greatest(last_active, touched.at)
FROM (
  SELECT sessions.id, noted.at
  FROM unnest(%(ids)s::text[], %(times)s::bigint[]) AS noted (id, at) JOIN sessions ON sessions.id = noted.id
  WHERE sessions.host = %(me)s
  ORDER BY sessions.id
  FOR NO KEY UPDATE OF sessions
) AS touched
WHERE sessions.id = touched.id AND sessions.last_active < touched.at

-- name: remove_session
DELETE FROM sessions WHERE id = %(id)s AND host = %(me)s

-- name: get_session
SELECT * FROM sessions WHERE id = %(id)s

-- name: named_session
SELECT * FROM sessions WHERE account = %(account)s AND name = %(name)s AND state <> 'deleting'

-- name: all_sessions
-- Of one host, some at a time.
SELECT * FROM sessions WHERE host = %(me)s AND id > %(after)s ORDER BY id LIMIT %(most)s

-- name: account_sessions
SELECT * FROM sessions WHERE account = %(account)s

-- name: account_sandboxes
SELECT sandbox FROM sessions WHERE account = %(account)s AND state <> 'deep-sleep'

-- name: count_sessions
SELECT coalesce((SELECT sessions FROM session_counts WHERE account = %(account)s), 0) AS sessions

-- name: count_states
-- Of one host, by an index.
SELECT state, count(*) AS sessions FROM sessions WHERE host = %(me)s GROUP BY state

-- name: changed_sessions
-- `horizon`: all transactions before this one have ended, and this query sees what they have done. `server` is another
-- one after a failover, whose transactions may have other numbers.
SELECT looked.*, sessions.*, sessions.changed::text::bigint AS changed_at
FROM (
  SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS horizon, pg_postmaster_start_time()::text AS server
) AS looked
LEFT JOIN sessions ON sessions.changed >= (%(since)s::text)::xid8 AND sessions.host = %(me)s

-- name: list_sessions
SELECT * FROM sessions
WHERE account = %(account)s AND state <> 'deleting' AND expires_at > %(now)s
  AND (%(state)s::text IS NULL OR state = %(state)s) AND (%(name)s::text IS NULL OR name = %(name)s)
ORDER BY created_at DESC, id
LIMIT %(limit)s OFFSET %(offset)s

-- name: count_listed_sessions
SELECT count(*) AS total FROM sessions
WHERE account = %(account)s AND state <> 'deleting' AND expires_at > %(now)s
  AND (%(state)s::text IS NULL OR state = %(state)s) AND (%(name)s::text IS NULL OR name = %(name)s)
