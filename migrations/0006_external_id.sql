-- The session of an identity provider that a login came from (`sid`), so that
-- its back-channel logout finds the session here.
ALTER TABLE "public"."session"
    ADD COLUMN IF NOT EXISTS external_id text;
