UPDATE "public"."session" AS t
SET session = d.session::json,
    expiry = GREATEST((ARRAY[
        t.expiry,
        pg_catalog.to_timestamp(LEAST(pg_catalog.date_part('epoch', pg_catalog.now()) + d.ttl, d.until))
    ])[1 + (d.ttl IS NOT NULL)::int])
    , last_seen = GREATEST((ARRAY[t.last_seen, pg_catalog.now()])[1 + (d.ttl IS NOT NULL)::int]) -- if last_seen
FROM unnest($1::text[], $2::bytea[], $3::text[], $4::float8[], $5::float8[]) AS d(id, digest, session, ttl, until)
WHERE t.id = d.id
  AND t.id = ANY($1)
  AND pg_catalog.sha256(pg_catalog.json_send(t.session)) = d.digest
  AND t.expiry > pg_catalog.now()
RETURNING t.id, t.expiry AS expires
