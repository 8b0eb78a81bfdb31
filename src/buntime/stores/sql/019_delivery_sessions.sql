-- Deliveries of one session go in order: a later one waits while an earlier one has failed once. A test goes to the one
-- endpoint that its data names, whatever types that asked for.
ALTER TABLE deliveries ADD COLUMN session TEXT;
UPDATE deliveries SET session = (SELECT session FROM events WHERE seq = event);

CREATE INDEX deliveries_failed_once ON deliveries (webhook, session, event)
WHERE state = 'pending' AND attempts = 1;

DROP TRIGGER events_to_deliver;
CREATE TRIGGER events_to_deliver AFTER INSERT ON events BEGIN
  INSERT INTO deliveries (id, webhook, event, state, attempts, due_at, session)
  SELECT 'dlv_' || lower(hex(randomblob(9))), id, NEW.seq, 'pending', 0, NEW.time, NEW.session
  FROM webhooks
  WHERE account IN (NEW.account, '') AND off IS NULL
    AND CASE WHEN NEW.type = 'webhook.test' THEN id = coalesce(json_extract(NEW.data, '$.webhookId'), id)
        ELSE types IS NULL OR EXISTS (SELECT 1 FROM json_each(types) WHERE value = NEW.type) END;
END;
