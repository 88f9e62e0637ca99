UPDATE "public"."session" AS t
SET session = $3::json,
    expiry = GREATEST((ARRAY[
        t.expiry,
        pg_catalog.to_timestamp(LEAST(pg_catalog.date_part('epoch', pg_catalog.now()) + $4, $5))
    ])[1 + ($4::float8 IS NOT NULL)::int])
    , last_seen = GREATEST((ARRAY[t.last_seen, pg_catalog.now()])[1 + ($4::float8 IS NOT NULL)::int]) -- if last_seen
WHERE t.id = $1
  AND pg_catalog.sha256(pg_catalog.json_send(t.session)) = $2
  AND t.expiry > pg_catalog.now()
RETURNING t.id, t.expiry AS expires
