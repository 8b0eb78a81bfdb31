-- needs: 2
-- One host looks each second for sessions that must end, and that nobody else ends: `strays` of the fleet.
CREATE INDEX sessions_by_end ON sessions (expires_at);
CREATE INDEX sessions_deleting ON sessions (id) WHERE state = 'deleting';
