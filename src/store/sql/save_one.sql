UPDATE "public"."session" AS t
SET session = $3::json,
    expiry = GREATEST((ARRAY[
        t.expiry,
        to_timestamp(LEAST(date_part('epoch', now()) + $4, $5))
    ])[1 + ($4::float8 IS NOT NULL)::int]),
    last_seen = GREATEST((ARRAY[t.last_seen, now()])[1 + ($4::float8 IS NOT NULL)::int])
WHERE t.id = $1
  AND sha256(json_send(t.session)) = $2
  AND t.expiry > now()
RETURNING t.id, t.expiry AS expires
