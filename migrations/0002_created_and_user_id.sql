-- `created` carries the absolute timeout, `user_id` the sessions of a user.
-- The default dates rows that other writers insert, and rows that are older
-- than this migration from the moment that it runs.
ALTER TABLE "public"."session"
    ADD COLUMN IF NOT EXISTS created timestamptz DEFAULT now(),
    ADD COLUMN IF NOT EXISTS user_id text;
