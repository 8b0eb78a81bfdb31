-- name: count_snapshots
SELECT count(*) AS snapshots FROM snapshots
WHERE account = %(account)s AND NOT is_automatic AND (expires_at IS NULL OR expires_at > %(now)s)

-- name: kept_numbers
SELECT (SELECT count(*) FROM snapshots WHERE NOT is_automatic AND (expires_at IS NULL OR expires_at > %(now)s))
         AS snapshots,
       count(*) AS layers, coalesce(sum(size), 0)::bigint AS layer_bytes, count(*) - count(saved) AS unsaved_layers
FROM layers WHERE key <> %(destroyed)s

-- name: add_snapshot
INSERT INTO snapshots (id, account, session, layer, image, image_name, size, created_at, expires_at, name, metadata,
                       is_automatic)
VALUES (%(id)s, %(account)s, %(session)s, %(layer)s, %(image)s, %(image_name)s, %(size)s, %(created_at)s,
        %(expires_at)s, %(name)s, %(metadata)s, %(is_automatic)s)

-- name: get_snapshot
SELECT * FROM snapshots WHERE id = %(id)s

-- name: count_listed_snapshots
SELECT count(*) AS total FROM snapshots
WHERE account = %(account)s AND (expires_at IS NULL OR expires_at > %(now)s)
  AND (%(session)s::text IS NULL OR session = %(session)s) AND (%(name)s::text IS NULL OR name = %(name)s)

-- name: list_snapshots
SELECT * FROM snapshots
WHERE account = %(account)s AND (expires_at IS NULL OR expires_at > %(now)s)
  AND (%(session)s::text IS NULL OR session = %(session)s) AND (%(name)s::text IS NULL OR name = %(name)s)
ORDER BY created_at DESC, arrival DESC LIMIT %(limit)s OFFSET %(offset)s

-- name: remove_snapshot
DELETE FROM snapshots WHERE id = %(id)s

-- name: drop_snapshots
DELETE FROM snapshots WHERE expires_at <= %(now)s

-- name: drop_snapshots_of
DELETE FROM snapshots WHERE account = %(account)s

-- name: drop_automatic
DELETE FROM snapshots WHERE session = %(session)s AND is_automatic

-- name: add_layer
INSERT INTO layers (id, account, image, size, created_at, key, saved, fork)
VALUES (%(id)s, %(account)s, %(image)s, %(size)s, %(created_at)s, %(key)s, %(saved)s, %(fork)s)

-- name: get_layer
SELECT * FROM layers WHERE id = %(id)s

-- name: find_fork_layer
SELECT * FROM layers WHERE account = %(account)s AND fork = %(fork)s AND fork <> ''

-- name: all_layers
SELECT * FROM layers ORDER BY created_at, id

-- name: counted_layers
SELECT * FROM layers
WHERE account = %(account)s AND key <> %(destroyed)s
  AND (EXISTS (SELECT FROM snapshots WHERE layer = layers.id AND NOT is_automatic)
       OR EXISTS (SELECT FROM made_images WHERE layer = layers.id)
       OR NOT EXISTS (SELECT FROM snapshots WHERE layer = layers.id))
ORDER BY created_at, id

-- name: counted_bytes
SELECT coalesce(sum(size), 0)::bigint AS bytes FROM layers
WHERE account = %(account)s AND key <> %(destroyed)s
  AND (EXISTS (SELECT FROM snapshots WHERE layer = layers.id AND NOT is_automatic)
       OR EXISTS (SELECT FROM made_images WHERE layer = layers.id)
       OR NOT EXISTS (SELECT FROM snapshots WHERE layer = layers.id))

-- name: save_layer
-- Two hosts may have saved it. What the first has named stays named.
UPDATE layers SET saved = %(saved)s WHERE id = %(id)s AND key <> %(destroyed)s AND saved IS NULL

-- name: end_fork
UPDATE layers SET fork = '' WHERE id = %(id)s

-- name: condemn_layers
UPDATE layers SET key = %(destroyed)s, fork = ''
WHERE key <> %(destroyed)s
  AND NOT (fork <> '' AND created_at > %(before)s)
  AND NOT EXISTS (SELECT FROM snapshots WHERE layer = layers.id)
  AND NOT EXISTS (SELECT FROM made_images WHERE layer = layers.id)

-- name: condemned_layers
SELECT * FROM layers WHERE key = %(destroyed)s ORDER BY created_at, id

-- name: remove_layer
DELETE FROM layers WHERE id = %(id)s AND key = %(destroyed)s

-- name: is_used
SELECT EXISTS (SELECT FROM images WHERE image = %(image)s)
       OR EXISTS (SELECT FROM sessions WHERE image = %(image)s)
       OR EXISTS (SELECT FROM snapshots WHERE image = %(image)s)
       OR EXISTS (SELECT FROM layers WHERE image = %(image)s)
       OR EXISTS (SELECT FROM made_images WHERE base = %(image)s) AS is_used

-- name: used_images
SELECT image FROM images UNION SELECT image FROM sessions UNION SELECT image FROM snapshots
UNION SELECT image FROM layers UNION SELECT base FROM made_images

-- name: count_names
SELECT count(*) AS names, coalesce(bool_or(name = %(name)s), false) AS has_it FROM images WHERE account = %(account)s

-- name: add_made_image
INSERT INTO made_images (id, base, layer, env, size, created_at)
VALUES (%(id)s, %(base)s, %(layer)s, %(env)s, %(size)s, %(created_at)s)
ON CONFLICT (id) DO NOTHING

-- name: get_made_image
SELECT * FROM made_images WHERE id = %(id)s

-- name: all_made_images
SELECT * FROM made_images ORDER BY created_at, id

-- name: drop_made_images
WITH gone AS (
  DELETE FROM made_images AS made
  WHERE NOT EXISTS (SELECT FROM images WHERE image = made.id)
    AND NOT EXISTS (SELECT FROM sessions WHERE image = made.id)
    AND NOT EXISTS (SELECT FROM snapshots WHERE image = made.id)
    AND NOT EXISTS (SELECT FROM layers WHERE image = made.id)
    AND NOT EXISTS (SELECT FROM made_images WHERE base = made.id)
  RETURNING id, created_at
)
SELECT id FROM gone ORDER BY created_at, id

-- name: put_image
INSERT INTO images (account, name, image, size, created_at)
VALUES (%(account)s, %(name)s, %(image)s, %(size)s, %(created_at)s)
ON CONFLICT (account, name)
DO UPDATE SET image = excluded.image, size = excluded.size, created_at = excluded.created_at

-- name: find_image
SELECT * FROM images WHERE account IN (%(account)s, '') AND name = %(name)s ORDER BY account DESC LIMIT 1

-- name: list_images
SELECT DISTINCT ON (name) * FROM images WHERE account IN (%(account)s, '') ORDER BY name, account DESC

-- name: remove_image
DELETE FROM images WHERE account = %(account)s AND name = %(name)s

-- name: drop_names_of
DELETE FROM images WHERE account = %(account)s

-- name: use_recipe
UPDATE hosts SET recipe = %(recipe)s WHERE id = %(host)s AND recipe <> %(recipe)s

-- name: put_default_image
-- The first one stays, unless it is the one that cannot be used.
INSERT INTO default_images (recipe, image) VALUES (%(recipe)s, %(image)s)
ON CONFLICT (recipe) DO UPDATE SET image = excluded.image WHERE default_images.image = %(instead_of)s

-- name: drop_default_images
DELETE FROM default_images WHERE NOT EXISTS (SELECT FROM hosts WHERE hosts.recipe = default_images.recipe)

-- name: default_image
SELECT image FROM default_images WHERE recipe = %(recipe)s

-- name: default_images
SELECT image FROM default_images
