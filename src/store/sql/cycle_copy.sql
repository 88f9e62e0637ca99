INSERT INTO "public"."session" AS n (id, expiry, session, created, user_id, last_seen, device)
SELECT $2,
       pg_catalog.to_timestamp(LEAST(extract(epoch FROM pg_catalog.now())::float8 + $4, $5)),
       $3::json,
       t.created, t.user_id, pg_catalog.now(), t.device
FROM "public"."session" AS t
WHERE t.id = $1
