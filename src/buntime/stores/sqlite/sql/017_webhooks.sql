-- A filter by session and type reads what it shows alone.
CREATE INDEX events_by_session_type ON events (session, type) WHERE session IS NOT NULL;

-- How often deliveries of the webhook were asked for again. A delivery has the number of the last time that was its own,
-- so an attempt that began before it does not settle it.
ALTER TABLE webhooks ADD COLUMN redeliveries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE deliveries ADD COLUMN redelivery INTEGER NOT NULL DEFAULT 0;

-- A webhook that was deleted is off for good, and only its id is left. The row goes after its last delivery. So each
-- index of webhooks leaves out those that do not matter to what it is for: deleted ones cost others nothing.
ALTER TABLE webhooks ADD COLUMN removed INTEGER NOT NULL DEFAULT 0;
CREATE INDEX webhooks_removed ON webhooks (id) WHERE removed = 1;
DROP INDEX webhooks_by_account;
CREATE INDEX webhooks_by_account ON webhooks (account, created_at, id) WHERE removed = 0;
CREATE INDEX webhooks_that_get ON webhooks (account) WHERE off IS NULL; -- an event of the account
CREATE INDEX webhooks_on ON webhooks (created_at, id) WHERE off IS NULL;
CREATE INDEX webhooks_off ON webhooks (off) WHERE off IS NOT NULL AND removed = 0;
