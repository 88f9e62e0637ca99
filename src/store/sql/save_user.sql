UPDATE "public"."session" AS t
SET session = $2::json,
    expiry = pg_catalog.to_timestamp(LEAST(pg_catalog.date_part('epoch', pg_catalog.now()) + $3, $4))
    , user_id = $5 -- if carried user_id
    , created = GREATEST((ARRAY[t.created, pg_catalog.now()])[1 + $6::bool::int]) -- if carried created
    , last_seen = pg_catalog.now() -- if carried last_seen
WHERE t.id = $1
  AND t.expiry > pg_catalog.now()
RETURNING t.expiry AS expires
