UPDATE "public"."session" AS t
SET session = $2::json,
    expiry = pg_catalog.to_timestamp(extract(epoch FROM pg_catalog.now())::float8 + $3),
    user_id = NULL,
    device = NULL
WHERE t.id = $1
