INSERT INTO "public"."session" AS n (id, expiry, session, created, user_id, last_seen, device)
SELECT $2,
       to_timestamp(LEAST(extract(epoch FROM now())::float8 + $4, $5)),
       $3::json,
       now(), $6, now(), $7::json
FROM "public"."session" AS t
WHERE t.id = $1
