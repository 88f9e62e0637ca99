INSERT INTO "public"."session" AS n (id, expiry, session, created, user_id, last_seen, device)
SELECT $2,
       to_timestamp(LEAST(extract(epoch FROM now())::float8 + $4, $5)),
       $3::json,
       t.created, t.user_id, now(), t.device
FROM "public"."session" AS t
WHERE t.id = $1
