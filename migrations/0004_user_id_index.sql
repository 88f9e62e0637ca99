-- The sessions of one user are one index scan; anonymous rows cost nothing.
CREATE INDEX IF NOT EXISTS "session_user_id_idx" ON "public"."session" (user_id) WHERE user_id IS NOT NULL;
