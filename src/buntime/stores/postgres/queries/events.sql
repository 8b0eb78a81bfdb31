-- name: add_event
INSERT INTO unnumbered_events (id, account, type, time, session, data, actor, request, key, address, sole)
VALUES (%(id)s, %(account)s, %(type)s, %(time)s, %(session)s, %(data)s, %(actor)s, %(request)s, %(key)s, %(address)s,
        %(sole)s)

-- name: note_event
-- The end of a process does not come after that of its session. The locks keep both as they are until the commit.
WITH session AS MATERIALIZED (
  SELECT id FROM sessions WHERE id = %(session)s AND state <> 'deleting' FOR SHARE
), account AS MATERIALIZED (
  SELECT status FROM accounts WHERE id = %(account)s FOR SHARE
)
INSERT INTO unnumbered_events (id, account, type, time, session, data, actor, request, key, address, sole)
SELECT %(id)s, %(account)s, %(type)s, %(time)s, %(session)s, %(data)s, %(actor)s, %(request)s, %(key)s, %(address)s,
       %(sole)s
WHERE %(type)s::text <> 'process.exited'
   OR (EXISTS (SELECT FROM session) AND NOT EXISTS (SELECT FROM account WHERE status = 'deleted'))

-- name: stored_events
SELECT id FROM events WHERE session = %(session)s ORDER BY seq DESC LIMIT %(most)s

-- name: has_unnumbered
SELECT EXISTS (SELECT FROM unnumbered_events) AS has

-- name: number_events
SELECT number_events()

-- name: list_events
SELECT * FROM events
WHERE seq > %(after)s AND (%(account)s::text IS NULL OR account = %(account)s)
  AND (%(session)s::text IS NULL OR session = %(session)s) AND (%(type)s::text IS NULL OR type = %(type)s)
ORDER BY seq LIMIT %(limit)s

-- name: newest_event
SELECT coalesce((SELECT seq FROM events WHERE account = %(account)s ORDER BY seq DESC LIMIT 1), 0) AS seq

-- name: newest_event_time
SELECT time FROM events ORDER BY seq DESC LIMIT 1

-- name: drop_old_events
WITH gone AS (
  DELETE FROM events
  WHERE seq IN (
    SELECT seq FROM (SELECT seq, time FROM events ORDER BY seq LIMIT %(most)s) AS oldest WHERE time < %(before)s
  )
  RETURNING account
), fewer AS (
  SELECT account, count(*) AS events FROM gone GROUP BY account
), counted AS (
  UPDATE event_counts SET events = event_counts.events - fewer.events FROM fewer
  WHERE event_counts.account = fewer.account
)
SELECT count(*) AS dropped FROM gone

-- name: drop_surplus_events
WITH crowded AS (
  SELECT account, events - %(kept)s AS surplus FROM event_counts WHERE events > %(kept)s ORDER BY account LIMIT 1
), gone AS (
  DELETE FROM events
  WHERE seq IN (
    SELECT seq FROM events WHERE account = (SELECT account FROM crowded)
    ORDER BY seq LIMIT (SELECT least(surplus, %(most)s) FROM crowded)
  )
  RETURNING account
), counted AS (
  UPDATE event_counts SET events = events - (SELECT count(*) FROM gone)
  WHERE account = (SELECT account FROM crowded)
)
SELECT count(*) AS dropped FROM gone
