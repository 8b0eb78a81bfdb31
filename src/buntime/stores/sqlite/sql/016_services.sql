-- What the session runs whenever it is awake: a JSON array of objects with the fields of `service.Service`.
ALTER TABLE sessions ADD COLUMN services TEXT NOT NULL DEFAULT '[]';
