UPDATE "public"."session" AS t
SET expiry = pg_catalog.to_timestamp(LEAST(pg_catalog.date_part('epoch', pg_catalog.now()) + $3, $4))
    , last_seen = pg_catalog.now() -- if last_seen
WHERE t.id = $1
  AND t.expiry IS NOT DISTINCT FROM pg_catalog.to_timestamp($2)
  AND t.expiry > pg_catalog.now()
RETURNING t.id, t.expiry AS expires
