-- The reaper finds the expired rows without reading the others.
CREATE INDEX IF NOT EXISTS "session_expiry_idx" ON "public"."session" (expiry);
