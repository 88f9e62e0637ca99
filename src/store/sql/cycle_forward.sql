UPDATE "public"."session" AS t
SET session = $2::json,
    expiry = to_timestamp(extract(epoch FROM now())::float8 + $3),
    user_id = NULL,
    device = NULL
WHERE t.id = $1
