-- Seconds between checkpoints of the session; 0: never; NULL: as the account's plan says.
ALTER TABLE sessions ADD COLUMN checkpoint_every INTEGER;
