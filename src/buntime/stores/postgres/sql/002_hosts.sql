-- needs: 2
-- The hosts of a fleet, and what each of them has. A server that knows only the first schema names no owner in what it
-- stores, so it must not use this one.

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

-- `host` of a session: the id of its owner. '': nobody's. 'local': of the server that had this database alone.
CREATE INDEX sessions_by_host ON sessions (host, state);

-- Volumes that hosts may still have of sessions that moved. A session gets another volume with each epoch.
CREATE TABLE left_behind (
  volume     text COLLATE "C" PRIMARY KEY,
  host       text COLLATE "C" NOT NULL,
  session    text COLLATE "C" NOT NULL,
  account    text COLLATE "C" NOT NULL,
  image      text NOT NULL,
  image_name text NOT NULL,
  disk       bigint NOT NULL,  -- MB
  changed    boolean NOT NULL, -- it may have something that the archive has not
  at         timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX left_behind_by_host ON left_behind (host);

-- Which host does the work that one host does for all.
CREATE TABLE duties (
  name        text PRIMARY KEY,
  host        text COLLATE "C" NOT NULL,
  incarnation bigint NOT NULL
);

INSERT INTO duties VALUES ('fleet', '', 0);

-- What is the same on all hosts, such as the fingerprint of their master key.
CREATE TABLE agreed (
  name  text PRIMARY KEY,
  value text NOT NULL
);

-- Idempotency keys whose request runs, or ran on a host that was lost.
CREATE TABLE keys_in_use (
  account     text COLLATE "C" NOT NULL,
  key         text COLLATE "C" NOT NULL,
  fingerprint text NOT NULL,
  repeatable  boolean NOT NULL, -- what a lost host has left of the request may be done again
  host        text COLLATE "C" NOT NULL,
  incarnation bigint NOT NULL,
  created_at  bigint NOT NULL,
  PRIMARY KEY (account, key)
);

CREATE INDEX keys_in_use_by_age ON keys_in_use (created_at);

-- Begins what a member stores. A host that is taken over, or joins again, waits for its end, and then sees what it did.
-- The database ends a transaction whose host says nothing for 4 seconds, so a lost host keeps no lock.
CREATE FUNCTION require_member(me text, mine bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('idle_in_transaction_session_timeout', '4s', true);
  PERFORM FROM hosts WHERE id = me AND incarnation = mine AND lease_until > clock_timestamp() FOR KEY SHARE;
  IF NOT FOUND THEN
    RAISE EXCEPTION '% may not act as incarnation %', me, mine USING ERRCODE = 'BF001';
  END IF;
END
$$;
