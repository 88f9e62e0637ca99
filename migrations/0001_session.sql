-- The table that every feature rests on. `json`, not `jsonb`: jsonb refuses
-- U+0000 and lone surrogates, so one visitor's input could break every save.
CREATE TABLE IF NOT EXISTS "public"."session" (
    id text PRIMARY KEY,
    expiry timestamptz NOT NULL,
    session json
);
