UPDATE "public"."session" AS t
SET session = d.session::json,
    expiry = COALESCE(to_timestamp(LEAST(extract(epoch FROM now())::float8 + d.ttl, d.until)), t.expiry)
FROM unnest($1::text[], $2::bytea[], $3::text[], $4::float8[], $5::float8[]) AS d(id, digest, session, ttl, until)
WHERE t.id = d.id
  AND t.id = ANY($1)
  AND sha256(json_send(t.session)) = d.digest
  AND t.expiry > now()
RETURNING t.id, extract(epoch FROM now())::float8 AS now
