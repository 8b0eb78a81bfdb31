-- needs: 1
-- The hosts of a fleet. For the store's migrations.
CREATE TABLE hosts (
  id          text COLLATE "C" PRIMARY KEY,
  incarnation bigint NOT NULL,      -- grows when the host joins, leaves, or is taken over
  renewals    bigint NOT NULL,      -- of this incarnation
  lease_until timestamptz NOT NULL, -- by clock_timestamp() of this database
  taken_over  boolean NOT NULL,     -- others may claim what the host had, until it joins again
  state       text NOT NULL CHECK (state IN ('active', 'draining')),
  address     text NOT NULL,
  version     text NOT NULL,
  capacity    jsonb NOT NULL
);
