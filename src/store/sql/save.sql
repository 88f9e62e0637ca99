UPDATE "public"."session" AS t
SET session = d.session::json,
    expiry = CASE
        WHEN d.ttl IS NULL THEN t.expiry
        ELSE to_timestamp(LEAST(date_part('epoch', now()) + d.ttl, d.until))
    END,
    last_seen = CASE WHEN d.ttl IS NULL THEN t.last_seen ELSE now() END
FROM unnest($1::text[], $2::bytea[], $3::text[], $4::float8[], $5::float8[]) AS d(id, digest, session, ttl, until)
WHERE t.id = d.id
  AND t.id = ANY($1)
  AND sha256(json_send(t.session)) = d.digest
  AND t.expiry > now()
RETURNING t.id, now() AS now
