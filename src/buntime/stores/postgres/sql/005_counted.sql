-- needs: 2
-- What is counted for a key or an account over all hosts. A server that does not know these tables counts alone.

-- Requests of one minute: a row for each key and account that sends some.
CREATE TABLE rates (
  name   text COLLATE "C" PRIMARY KEY,
  minute bigint NOT NULL, -- of the Unix time of clock_timestamp()
  most   bigint NOT NULL, -- by the plan, as the last host said it
  every  bigint NOT NULL, -- handed out to hosts
  given  bigint NOT NULL  -- of these, the last time
) WITH (fillfactor = 50);

-- What accounts have open on each host, such as processes.
CREATE TABLE places (
  account     text COLLATE "C" NOT NULL,
  kind        text COLLATE "C" NOT NULL,
  host        text COLLATE "C" NOT NULL,
  incarnation bigint NOT NULL, -- of the host: another one's rows count no more
  used        bigint NOT NULL,
  PRIMARY KEY (account, kind, host)
) WITH (fillfactor = 50);
