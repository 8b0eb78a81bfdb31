-- When a session sleeps, beside `checkpoint_every`. Seconds; 0: never; NULL: as the server says. A session that never
-- ends has the largest integer in `expires_at`, which takes no NULL.
ALTER TABLE sessions ADD COLUMN idle_after INTEGER;
ALTER TABLE sessions ADD COLUMN deep_sleep_after INTEGER;
ALTER TABLE sessions ADD COLUMN awake_while TEXT NOT NULL DEFAULT 'requests';
