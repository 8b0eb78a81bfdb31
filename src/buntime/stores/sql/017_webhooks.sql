-- A filter by session and type reads what it shows alone.
CREATE INDEX events_by_session_type ON events (session, type) WHERE session IS NOT NULL;

-- How often deliveries of the webhook were asked for again. A delivery has the number of the last time that was its own,
-- so an attempt that began before it does not settle it.
ALTER TABLE webhooks ADD COLUMN redeliveries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE deliveries ADD COLUMN redelivery INTEGER NOT NULL DEFAULT 0;

-- A webhook that was deleted is off for good, and only its id is left. The row goes after its last delivery.
ALTER TABLE webhooks ADD COLUMN removed INTEGER NOT NULL DEFAULT 0;
CREATE INDEX webhooks_removed ON webhooks (id) WHERE removed = 1;
