UPDATE "public"."session" AS t
SET session = $3::json,
    expiry = CASE
        WHEN $4::float8 IS NULL THEN t.expiry
        ELSE to_timestamp(LEAST(date_part('epoch', now()) + $4, $5))
    END,
    last_seen = CASE WHEN $4::float8 IS NULL THEN t.last_seen ELSE now() END
WHERE t.id = $1
  AND sha256(json_send(t.session)) = $2
  AND t.expiry > now()
RETURNING t.id, now() AS now
