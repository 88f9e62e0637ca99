UPDATE "public"."session" AS t
SET session = $2::json,
    expiry = pg_catalog.to_timestamp(extract(epoch FROM pg_catalog.now())::float8 + $3)
    , user_id = NULL -- if carried user_id
    , device = NULL -- if device
    , external_id = NULL -- if external_id
WHERE t.id = $1
