UPDATE "public"."session" AS t
SET expiry = to_timestamp(LEAST(date_part('epoch', now()) + d.ttl, d.until)),
    last_seen = now()
FROM unnest($1::text[], $2::float8[], $3::float8[], $4::float8[]) AS d(id, expires, ttl, until)
WHERE t.id = d.id
  AND t.id = ANY($1)
  AND t.expiry = to_timestamp(d.expires)
  AND t.expiry > now()
RETURNING t.id, t.expiry AS expires
