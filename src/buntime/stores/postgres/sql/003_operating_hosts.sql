-- needs: 2
-- What operators of a fleet see and set.
ALTER TABLE hosts
  ADD COLUMN joined_at   timestamptz NOT NULL DEFAULT clock_timestamp(), -- for the newest time
  ADD COLUMN has_left    boolean NOT NULL DEFAULT false, -- it gave up its lease itself; then `taken_over` is true too
  ADD COLUMN drain_until timestamptz; -- when a host that drains ends what is still awake; NULL: it does not drain
