UPDATE "public"."session" AS t
SET session = $2::json,
    expiry = pg_catalog.to_timestamp($3),
    user_id = $4,
    device = $5::json,
    created = pg_catalog.to_timestamp($6)
WHERE t.id = $1
