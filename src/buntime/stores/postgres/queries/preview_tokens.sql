-- name: lock_session
SELECT state, host, epoch FROM sessions WHERE id = %(id)s FOR NO KEY UPDATE

-- name: count_preview_tokens
SELECT count(*) AS tokens FROM preview_tokens WHERE session = %(session)s AND expires_at > %(now)s

-- name: add_preview_token
INSERT INTO preview_tokens (hash, session, port, created_at, expires_at)
VALUES (%(hash)s, %(session)s, %(port)s, %(created_at)s, %(expires_at)s)

-- name: find_preview_token
SELECT hash, session, port, created_at, expires_at FROM preview_tokens WHERE hash = %(hash)s

-- name: revoke_preview_tokens
DELETE FROM preview_tokens WHERE session = %(session)s AND hash = coalesce(%(hash)s::text, hash)

-- name: drop_preview_tokens
DELETE FROM preview_tokens WHERE expires_at <= %(now)s
