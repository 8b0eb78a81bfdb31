-- name: waiting_webhooks
SELECT id, version, redeliveries,
       (SELECT max(event) FROM deliveries WHERE webhook = webhooks.id) AS newest,
       (SELECT max(due_at) FROM deliveries WHERE webhook = webhooks.id AND state = 'pending' AND due_at <= %(now)s) AS due
FROM webhooks
WHERE off IS NULL
  AND NOT EXISTS (SELECT FROM accounts WHERE accounts.id = webhooks.account AND status <> 'active')
  AND EXISTS (SELECT FROM deliveries WHERE webhook = webhooks.id AND state = 'pending' AND due_at <= %(now)s)
ORDER BY created_at, id

-- name: is_off
SELECT off FROM webhooks WHERE id = %(webhook)s

-- name: look_for_due
-- An index has these columns, so a look reads no row of the table.
SELECT id, due_at, event, session FROM deliveries
WHERE webhook = %(webhook)s AND state = 'pending' AND due_at <= %(now)s
  AND (due_at, event) > (%(after)s, %(after_event)s)
ORDER BY due_at, event LIMIT %(looked)s

-- name: failed_once
SELECT session, min(event) AS event FROM deliveries
WHERE webhook = %(webhook)s AND state = 'pending' AND attempts = 1 AND session = ANY (%(sessions)s::text[])
GROUP BY session

-- name: found_deliveries
SELECT events.*, deliveries.id AS delivery, webhook, state, attempts, due_at, tried_at, status, failure, redelivery
FROM deliveries JOIN events ON events.seq = deliveries.event
WHERE deliveries.id = ANY (%(ids)s::text[]) AND state = 'pending' ORDER BY due_at, event

-- name: note_success
UPDATE webhooks SET failing_since = NULL WHERE id = %(webhook)s

-- name: note_failure
UPDATE webhooks SET failing_since = coalesce(failing_since, %(tried_at)s) WHERE id = %(webhook)s

-- name: settle_delivery
UPDATE deliveries
SET state = %(state)s, attempts = %(attempts)s, due_at = %(due_at)s, tried_at = %(tried_at)s, status = %(status)s,
    failure = %(failure)s
WHERE id = %(id)s AND redelivery = %(redelivery)s AND state = 'pending' -- two hosts may have sent it
  AND EXISTS (SELECT FROM webhooks WHERE webhooks.id = deliveries.webhook AND NOT removed)

-- name: count_deliveries
-- NULL: there is no such webhook.
SELECT CASE WHEN EXISTS (SELECT FROM webhooks WHERE id = %(webhook)s AND NOT removed) THEN
  (SELECT count(*) FROM (SELECT FROM deliveries WHERE webhook = %(webhook)s LIMIT %(most)s) AS counted)
END AS total

-- name: list_deliveries
-- An index alone is read to skip the offset.
SELECT events.*, deliveries.id AS delivery, webhook, state, attempts, due_at, tried_at, status, failure, redelivery
FROM (
  SELECT event FROM deliveries WHERE webhook = %(webhook)s ORDER BY event DESC LIMIT %(limit)s OFFSET %(offset)s
) AS page
JOIN deliveries ON deliveries.event = page.event AND webhook = %(webhook)s
JOIN events ON events.seq = page.event
ORDER BY page.event DESC

-- name: lock_webhook
SELECT id FROM webhooks WHERE id = %(webhook)s FOR NO KEY UPDATE

-- name: redeliver
-- One that is pending keeps its place before the later events of its session, which an attempt would hold back.
UPDATE deliveries
SET state = 'pending', attempts = 0,
    due_at = CASE state WHEN 'pending' THEN least(%(now)s, (SELECT time FROM events WHERE seq = event))
             ELSE %(now)s END,
    redelivery = 1 + (SELECT redeliveries FROM webhooks WHERE id = %(webhook)s)
WHERE id = %(id)s AND webhook = %(webhook)s

-- name: count_redelivery
UPDATE webhooks SET redeliveries = redeliveries + 1 WHERE id = %(webhook)s

-- name: count_pending
SELECT count(*) AS pending FROM (
  SELECT FROM webhooks JOIN deliveries ON deliveries.webhook = webhooks.id
  WHERE off IS NULL AND state = 'pending' LIMIT %(most)s
) AS counted

-- name: count_off
SELECT off, count(*) AS webhooks FROM webhooks WHERE off IS NOT NULL AND NOT removed GROUP BY off

-- name: drop_removed
DELETE FROM deliveries WHERE id IN (
  SELECT deliveries.id FROM webhooks JOIN deliveries ON deliveries.webhook = webhooks.id WHERE removed LIMIT %(most)s
)

-- name: drop_emptied
DELETE FROM webhooks WHERE id IN (
  SELECT id FROM webhooks
  WHERE removed AND NOT EXISTS (SELECT FROM deliveries WHERE webhook = webhooks.id) LIMIT %(most)s
)
