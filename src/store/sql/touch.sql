UPDATE "public"."session" AS t
SET expiry = pg_catalog.to_timestamp(LEAST(pg_catalog.date_part('epoch', pg_catalog.now()) + d.ttl, d.until))
    , last_seen = pg_catalog.now() -- if last_seen
FROM unnest($1::text[], $2::float8[], $3::float8[], $4::float8[]) AS d(id, expires, ttl, until)
WHERE t.id = d.id
  AND t.id = ANY($1)
  AND t.expiry = pg_catalog.to_timestamp(d.expires)
  AND t.expiry > pg_catalog.now()
RETURNING t.id, t.expiry AS expires
