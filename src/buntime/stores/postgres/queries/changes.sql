-- name: mark
-- Whoever stalls in a transaction must not hold up the others for long.
INSERT INTO changes (id, made) VALUES (%(change)s, true)
RETURNING set_config('lock_timeout', '5s', true), set_config('idle_in_transaction_session_timeout', '5s', true)

-- name: mark_and_bound
-- The second bound ends also what stalls between two statements that are sent together.
INSERT INTO changes (id, made) VALUES (%(change)s, true)
RETURNING set_config('lock_timeout', '5s', true), set_config('idle_in_transaction_session_timeout', '5s', true),
          set_config('transaction_timeout', '15s', true)

-- name: require_member
SELECT require_member(%(host)s, %(incarnation)s)

-- name: agreed
SELECT value FROM agreed WHERE name = %(name)s

-- name: agree
INSERT INTO agreed (name, value) VALUES (%(name)s, %(value)s) ON CONFLICT (name) DO NOTHING

-- name: outcome
-- Waits for a transaction with this mark that is still under way. If there is none, none can commit any more.
INSERT INTO changes (id, made) VALUES (%(change)s, false)
ON CONFLICT (id) DO UPDATE SET id = excluded.id
RETURNING made

-- name: drop_changes
WITH gone AS (DELETE FROM changes WHERE at < clock_timestamp() - interval '10 minutes' RETURNING id)
SELECT count(*) AS dropped FROM gone

-- name: lock_account
-- Limits of an account are checked by one transaction at a time.
SELECT pg_advisory_xact_lock(hashtextextended(%(account)s::text, 0))

-- name: keep_references
-- Nothing that is unused is removed until this transaction ends.
SELECT pg_advisory_xact_lock_shared(7097014860201002)

-- name: hold_references
-- No transaction adds a reference to an image or a layer until this one ends.
SELECT pg_advisory_xact_lock(7097014860201002)

-- name: later_on_disk
SET LOCAL synchronous_commit = off

-- name: tell_others
SELECT pg_notify('buntime_stored', %(host)s)

-- name: tell_of_stored
-- In a transaction of its own, which waits for no disk: what it tells of is stored already.
SELECT set_config('synchronous_commit', 'off', true), pg_notify('buntime_stored', %(host)s)
