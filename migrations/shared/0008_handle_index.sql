-- For a format whose ids contain the token: finds a row by its public handle, the SHA-256 of the
-- id. `convert_to` is not immutable, so the id is converted by `decode`, which returns the same
-- bytes if backslashes are doubled.
CREATE INDEX IF NOT EXISTS "session_handle_idx" ON "public"."session"
    (sha256(decode(replace(id, E'\\', E'\\\\'), 'escape')));
