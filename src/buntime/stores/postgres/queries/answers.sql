-- name: find_answer
SELECT * FROM answers WHERE account = %(account)s AND key = %(key)s

-- name: add_answer
INSERT INTO answers (account, key, fingerprint, status, created_at, headers, packed, body)
VALUES (%(account)s, %(key)s, %(fingerprint)s, %(status)s, %(created_at)s, %(headers)s, %(packed)s, %(body)s)
ON CONFLICT (account, key) DO NOTHING

-- name: answer_request
-- A whole transaction in one statement, as `add_session` is.
WITH marked AS (
  INSERT INTO changes (id, made) VALUES (%(change)s, true) RETURNING set_config('lock_timeout', '5s', true)
), allowed AS MATERIALIZED (
  SELECT require_member(%(host)s, %(incarnation)s) FROM marked
), ended AS (
  DELETE FROM keys_in_use
  WHERE account = %(account)s AND key = %(key)s AND host = %(host)s AND incarnation = %(incarnation)s
)
INSERT INTO answers (account, key, fingerprint, status, created_at, headers, packed, body)
SELECT %(account)s, %(key)s, %(fingerprint)s, %(status)s, %(created_at)s, %(headers)s, %(packed)s, %(body)s
FROM allowed
WHERE NOT EXISTS ( -- what a host did before it lapsed is no answer
  SELECT FROM keys_in_use
  WHERE account = %(account)s AND key = %(key)s AND (host <> %(host)s OR incarnation <> %(incarnation)s)
)
ON CONFLICT (account, key) DO NOTHING

-- name: begin_key
WITH marked AS (
  INSERT INTO changes (id, made) VALUES (%(change)s, true) RETURNING set_config('lock_timeout', '5s', true)
)
SELECT begin_key(%(account)s, %(key)s, %(fingerprint)s, %(repeatable)s, %(host)s, %(incarnation)s, %(now)s) FROM marked

-- name: end_key
-- Another host may have gone on with it. A run that began before this host lapsed may have happened.
DELETE FROM keys_in_use
WHERE account = %(account)s AND key = %(key)s AND host = %(host)s AND (repeatable OR incarnation = %(incarnation)s)

-- name: drop_keys
DELETE FROM keys_in_use WHERE created_at < %(before)s

-- name: change_answer
UPDATE answers SET packed = %(packed)s, body = %(body)s WHERE account = %(account)s AND key = %(key)s

-- name: drop_answers
DELETE FROM answers
WHERE (account, key) IN (
  SELECT account, key FROM answers WHERE created_at < %(before)s ORDER BY created_at LIMIT %(most)s
)
