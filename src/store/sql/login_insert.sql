INSERT INTO "public"."session" AS t (id, expiry, session, created, user_id, last_seen, device)
SELECT $1,
       pg_catalog.to_timestamp(LEAST(extract(epoch FROM pg_catalog.now())::float8 + $3, $4)),
       $2::json,
       pg_catalog.now(), $5, pg_catalog.now(), $6::json
RETURNING t.expiry AS expires
