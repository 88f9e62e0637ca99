-- The sessions of one external id are one index scan; all others cost nothing.
CREATE INDEX IF NOT EXISTS "session_external_id_idx" ON "public"."session" (external_id) WHERE external_id IS NOT NULL;
