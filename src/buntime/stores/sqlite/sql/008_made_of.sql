-- The snapshot that the session was made of. No reference: it may have been deleted or expired since.
ALTER TABLE sessions ADD COLUMN made_of TEXT;
