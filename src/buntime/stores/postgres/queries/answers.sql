-- name: find_answer
SELECT * FROM answers WHERE account = %(account)s AND key = %(key)s

-- name: has_answer
SELECT FROM answers WHERE account = %(account)s AND key = %(key)s

-- name: add_answer
INSERT INTO answers (account, key, fingerprint, status, created_at, headers, packed, body)
VALUES (%(account)s, %(key)s, %(fingerprint)s, %(status)s, %(created_at)s, %(headers)s, %(packed)s, %(body)s)
ON CONFLICT (account, key) DO NOTHING

-- name: begin_key
INSERT INTO keys_in_use (account, key, fingerprint, repeatable, host, incarnation, created_at)
VALUES (%(account)s, %(key)s, %(fingerprint)s, %(repeatable)s, %(host)s, %(incarnation)s, %(now)s)
ON CONFLICT (account, key) DO NOTHING

-- name: key_in_use
-- `runs`: on another host, which has not been lost since. A host asks this only for what it does not run itself.
SELECT fingerprint, repeatable, host <> %(host)s
       AND EXISTS (SELECT FROM hosts WHERE id = used.host AND incarnation = used.incarnation) AS runs
FROM keys_in_use AS used WHERE account = %(account)s AND key = %(key)s FOR UPDATE

-- name: go_on_with_key
UPDATE keys_in_use SET host = %(host)s, incarnation = %(incarnation)s WHERE account = %(account)s AND key = %(key)s

-- name: end_key
-- Another host may have gone on with it.
DELETE FROM keys_in_use WHERE account = %(account)s AND key = %(key)s AND host = %(host)s

-- name: drop_keys
DELETE FROM keys_in_use WHERE created_at < %(before)s

-- name: change_answer
UPDATE answers SET packed = %(packed)s, body = %(body)s WHERE account = %(account)s AND key = %(key)s

-- name: drop_answers
DELETE FROM answers
WHERE (account, key) IN (
  SELECT account, key FROM answers WHERE created_at < %(before)s ORDER BY created_at LIMIT %(most)s
)
