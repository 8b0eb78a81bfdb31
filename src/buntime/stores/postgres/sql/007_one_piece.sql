-- needs: 2
-- What a new session needs, so that all statements of a create are sent in one piece. Each refusal has a code of its
-- own, and ends the transaction. Statements of a function see what was committed while an earlier one waited for a lock.
CREATE FUNCTION require_place(
  owner text, session text, wanted text, most bigint, of_image text, of_name text, is_default boolean
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  holder text;
  used bigint;
BEGIN
  PERFORM pg_advisory_xact_lock_shared(7097014860201002); -- nothing that is unused is removed until the commit
  PERFORM pg_advisory_xact_lock(hashtextextended(owner, 0)); -- limits are checked by one transaction at a time
  IF wanted IS NOT NULL THEN
    SELECT id INTO holder FROM sessions
    WHERE account = owner AND name = wanted AND state <> 'deleting' AND id <> session;
    IF FOUND THEN
      RAISE EXCEPTION '% has the name', holder USING ERRCODE = 'BF002', DETAIL = holder;
    END IF;
  END IF;
  SELECT sessions INTO used FROM session_counts WHERE account = owner;
  IF coalesce(used, 0) >= most THEN
    RAISE EXCEPTION '% has % sessions', owner, used USING ERRCODE = 'BF003', DETAIL = coalesce(used, 0)::text;
  END IF;
  IF is_default THEN
    RETURN;
  END IF;
  IF of_image = (
    SELECT image FROM images WHERE account IN (owner, '') AND name = of_name ORDER BY account DESC LIMIT 1
  ) OR EXISTS (SELECT FROM sessions WHERE image = of_image AND account = owner)
    OR EXISTS (SELECT FROM snapshots WHERE image = of_image AND account = owner)
    OR EXISTS (SELECT FROM layers WHERE image = of_image AND account = owner)
  THEN
    RETURN;
  END IF;
  RAISE EXCEPTION '% is not kept', of_image USING ERRCODE = 'BF004';
END
$$;
