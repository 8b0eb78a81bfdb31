-- needs: 2
-- Begins a request with an Idempotency-Key, in one statement. Each refusal has a code of its own, and undoes what the
-- function has done. Its statements see what was committed while an earlier one waited.
CREATE FUNCTION begin_key(
  owner text, wanted text, print text, may_repeat boolean, me text, mine bigint, began bigint
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  used keys_in_use;
BEGIN
  PERFORM require_member(me, mine);
  INSERT INTO keys_in_use (account, key, fingerprint, repeatable, host, incarnation, created_at)
  VALUES (owner, wanted, print, may_repeat, me, mine, began)
  ON CONFLICT (account, key) DO NOTHING;
  IF FOUND THEN
    IF EXISTS (SELECT FROM answers WHERE account = owner AND key = wanted) THEN
      RAISE EXCEPTION '% has an answer', wanted USING ERRCODE = 'BF005';
    END IF;
    RETURN;
  END IF;
  SELECT * INTO used FROM keys_in_use WHERE account = owner AND key = wanted FOR UPDATE;
  -- a host calls this only for what it does not run itself; one that was lost since runs nothing
  IF NOT FOUND OR (used.fingerprint = print AND used.host <> me AND EXISTS (
    SELECT FROM hosts WHERE id = used.host AND incarnation = used.incarnation
  )) THEN
    RAISE EXCEPTION '% is in use', wanted USING ERRCODE = 'BF006';
  END IF;
  IF used.fingerprint <> print THEN
    RAISE EXCEPTION '% was used for another request', wanted USING ERRCODE = 'BF007';
  END IF;
  IF NOT used.repeatable THEN
    RAISE EXCEPTION 'what became of % is not known', wanted USING ERRCODE = 'BF008';
  END IF;
  UPDATE keys_in_use SET host = me, incarnation = mine WHERE account = owner AND key = wanted;
END
$$;
