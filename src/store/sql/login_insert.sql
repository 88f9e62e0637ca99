INSERT INTO "public"."session" AS t (id, expiry, session, created, user_id, last_seen, device)
SELECT $1,
       to_timestamp(LEAST(extract(epoch FROM now())::float8 + $3, $4)),
       $2::json,
       now(), $5, now(), $6::json
RETURNING t.expiry AS expires
