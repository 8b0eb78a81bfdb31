-- name: lock_status
SELECT status FROM accounts WHERE id = %(account)s FOR SHARE

-- name: count_webhooks
SELECT count(*) AS webhooks FROM webhooks WHERE account = %(account)s AND NOT removed

-- name: add_webhook
INSERT INTO webhooks (id, account, url, types, secrets, created_at, off, failing_since, version)
VALUES (%(id)s, %(account)s, %(url)s, %(types)s, %(secrets)s, %(created_at)s, %(off)s, %(failing_since)s, %(version)s)

-- name: get_webhook
SELECT * FROM webhooks WHERE id = %(id)s AND NOT removed

-- name: list_webhooks
SELECT * FROM webhooks WHERE account = %(account)s AND NOT removed ORDER BY created_at, id

-- name: change_webhook
UPDATE webhooks
SET url = %(url)s, types = %(types)s, secrets = %(secrets)s, version = version + 1, off = %(off)s,
    failing_since = CASE WHEN off IS NOT NULL AND %(off)s::text IS NULL THEN NULL ELSE failing_since END
WHERE id = %(id)s AND version = %(expected)s AND NOT removed

-- name: remove_webhook
-- It costs one row's change, however many deliveries there are. `drop_removed` does the rest.
UPDATE webhooks SET removed = true, off = 'asked', url = '', types = NULL, secrets = '[]'
WHERE id = %(id)s AND NOT removed

-- name: remove_webhooks_of
UPDATE webhooks SET removed = true, off = 'asked', url = '', types = NULL, secrets = '[]'
WHERE account = %(account)s AND NOT removed
