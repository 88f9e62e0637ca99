-- The ids of destroyed sessions, so that a late write of another application can't revive them. A
-- row that expired more than 10 seconds before leaves none. Each new tombstone deletes up to two
-- that are no longer needed, except under SERIALIZABLE.
CREATE TABLE IF NOT EXISTS "public"."session_tombstones" (
    id text PRIMARY KEY,
    until timestamptz NOT NULL
);
CREATE INDEX IF NOT EXISTS "session_tombstones_until_idx" ON "public"."session_tombstones" (until);

CREATE OR REPLACE FUNCTION "public"."session_leave_tombstone"() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $axum_pg_session$
BEGIN
    -- If the row still exists, an update has moved it to another partition. A session that has just
    -- expired may still have a request in flight.
    IF OLD.expiry > now() - interval '10 seconds' AND NOT EXISTS (SELECT FROM "public"."session" AS t WHERE t.id = OLD.id) THEN
        INSERT INTO "public"."session_tombstones" AS d (id, until)
        VALUES (OLD.id, GREATEST(OLD.expiry, now() + interval '1 hour'))
        ON CONFLICT (id) DO UPDATE SET until = GREATEST(d.until, EXCLUDED.until);

        -- Under REPEATABLE READ, it is an error to delete a row that another transaction has deleted
        -- meanwhile. The error is ignored: a later deletion removes the others. Under SERIALIZABLE,
        -- the transaction could not commit after it.
        IF current_setting('transaction_isolation') <> 'serializable' THEN
            BEGIN
                WITH unneeded AS MATERIALIZED (
                    SELECT o.id
                    FROM "public"."session_tombstones" AS o
                    WHERE o.until <= now()
                    ORDER BY o.until
                    LIMIT 2
                    FOR UPDATE SKIP LOCKED
                )
                DELETE FROM "public"."session_tombstones" AS d
                WHERE d.id IN (SELECT u.id FROM unneeded AS u);
            EXCEPTION WHEN serialization_failure THEN
                NULL;
            END;
        END IF;
    END IF;
    RETURN NULL;
END
$axum_pg_session$;

-- It runs after the insert. Before it, an `ON CONFLICT` has not yet waited for a transaction that
-- deletes the row, and the tombstone would not be visible. Other transactions never see the row.
CREATE OR REPLACE FUNCTION "public"."session_keep_destroyed"() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $axum_pg_session$
BEGIN
    -- Under a stricter isolation level, a new tombstone is not visible. Then this insert fails with
    -- a serialization error, so the session is not revived.
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        INSERT INTO "public"."session_tombstones" (id, until)
        VALUES (NEW.id, '-infinity')
        ON CONFLICT DO NOTHING;
        DELETE FROM "public"."session_tombstones" WHERE id = NEW.id AND until = '-infinity';
    END IF;

    IF EXISTS (SELECT FROM "public"."session_tombstones" WHERE id = NEW.id AND until > now()) THEN
        IF current_setting('axum_pg_session.restores', true) = NEW.id THEN
            DELETE FROM "public"."session_tombstones" WHERE id = NEW.id;
        ELSE
            DELETE FROM "public"."session" AS t WHERE t.id = NEW.id;
        END IF;
    END IF;
    RETURN NULL;
END
$axum_pg_session$;

-- Otherwise, every role could attach them to a table of its own, and delete sessions.
REVOKE ALL ON FUNCTION "public"."session_leave_tombstone"() FROM PUBLIC;
REVOKE ALL ON FUNCTION "public"."session_keep_destroyed"() FROM PUBLIC;

DROP TRIGGER IF EXISTS "session_leave_tombstone" ON "public"."session";
CREATE TRIGGER "session_leave_tombstone" AFTER DELETE ON "public"."session"
    FOR EACH ROW EXECUTE FUNCTION "public"."session_leave_tombstone"();
DROP TRIGGER IF EXISTS "session_keep_destroyed" ON "public"."session";
CREATE TRIGGER "session_keep_destroyed" AFTER INSERT ON "public"."session"
    FOR EACH ROW EXECUTE FUNCTION "public"."session_keep_destroyed"();
