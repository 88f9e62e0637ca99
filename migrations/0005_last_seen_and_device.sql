-- What a list of one's devices shows. `last_seen` moves with the expiry, and
-- `device` holds what the application chose to remember at the login.
-- The default dates rows that are older than this migration from the moment
-- that it runs.
ALTER TABLE "public"."session"
    ADD COLUMN IF NOT EXISTS last_seen timestamptz DEFAULT now(),
    ADD COLUMN IF NOT EXISTS device json;
