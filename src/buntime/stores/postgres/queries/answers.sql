-- name: find_answer
SELECT * FROM answers WHERE account = %(account)s AND key = %(key)s

-- name: add_answer
INSERT INTO answers (account, key, fingerprint, status, created_at, headers, packed, body)
VALUES (%(account)s, %(key)s, %(fingerprint)s, %(status)s, %(created_at)s, %(headers)s, %(packed)s, %(body)s)
ON CONFLICT (account, key) DO NOTHING

-- name: change_answer
UPDATE answers SET packed = %(packed)s, body = %(body)s WHERE account = %(account)s AND key = %(key)s

-- name: drop_answers
DELETE FROM answers
WHERE (account, key) IN (
  SELECT account, key FROM answers WHERE created_at < %(before)s ORDER BY created_at LIMIT %(most)s
)
