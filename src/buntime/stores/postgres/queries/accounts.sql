-- name: add_account
INSERT INTO accounts (id, plan, created_at, status, overrides)
VALUES (%(id)s, %(plan)s, %(created_at)s, %(status)s, %(overrides)s)

-- name: get_account
SELECT * FROM accounts WHERE id = %(id)s

-- name: inactive_accounts
SELECT * FROM accounts WHERE status <> 'active' ORDER BY created_at, id

-- name: list_accounts
SELECT * FROM accounts ORDER BY created_at, id

-- name: set_account_status
-- Hosts that know a key of the account ask again.
WITH changed AS (UPDATE accounts SET status = %(status)s WHERE id = %(id)s AND status <> 'deleted' RETURNING id)
SELECT pg_notify('buntime_keys', '') FROM changed

-- name: count_valid_keys
SELECT count(*) AS keys FROM keys
WHERE account = %(account)s AND revoked_at IS NULL AND coalesce(expires_at > %(now)s, true)

-- name: forget_keys
DELETE FROM keys WHERE id IN (
  SELECT id FROM keys
  WHERE account = %(account)s AND maker IS NOT NULL
    AND NOT (revoked_at IS NULL AND coalesce(expires_at > %(now)s, true))
  ORDER BY created_at DESC, id OFFSET %(limit)s
)

-- name: add_key
INSERT INTO keys (id, account, hash, hint, created_at, revoked_at, name, scopes, expires_at, maker)
VALUES (%(id)s, %(account)s, %(hash)s, %(hint)s, %(created_at)s, %(revoked_at)s, %(name)s, %(scopes)s, %(expires_at)s,
        %(maker)s)

-- name: list_keys
SELECT * FROM keys ORDER BY created_at, id

-- name: list_keys_of_account
SELECT * FROM keys WHERE account = %(account)s ORDER BY created_at, id

-- name: revoke_key
-- Hosts that know the key ask again.
WITH revoked AS (UPDATE keys SET revoked_at = %(now)s WHERE id = %(id)s AND revoked_at IS NULL RETURNING id)
SELECT pg_notify('buntime_keys', '') FROM revoked

-- name: find_key
SELECT keys.*, plan, accounts.created_at AS account_created_at, status, overrides
FROM keys JOIN accounts ON accounts.id = keys.account
WHERE hash = %(hash)s AND revoked_at IS NULL
