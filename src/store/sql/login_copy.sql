INSERT INTO "public"."session" AS n (id, expiry, session, created, user_id, last_seen, device)
SELECT $2,
       pg_catalog.to_timestamp(LEAST(extract(epoch FROM pg_catalog.now())::float8 + $4, $5)),
       $3::json,
       pg_catalog.now(), $6, pg_catalog.now(), $7::json
FROM "public"."session" AS t
WHERE t.id = $1
