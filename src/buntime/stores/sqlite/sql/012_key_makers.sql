-- The id of the key that made this one by the API. NULL: the command line on a server.
ALTER TABLE keys ADD COLUMN maker TEXT;
