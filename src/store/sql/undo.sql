UPDATE "public"."session" AS t
SET session = $2::json,
    expiry = pg_catalog.to_timestamp($3)
    , user_id = $4 -- if carried user_id
    , device = $5::json -- if device
    , external_id = $7 -- if external_id
    , created = pg_catalog.to_timestamp($6) -- if created
WHERE t.id = $1
