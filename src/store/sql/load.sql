SELECT t.id,
       t.session::text AS session,
       extract(epoch FROM t.expiry)::float8 AS expires,
       extract(epoch FROM t.created)::float8 AS created,
       extract(epoch FROM now())::float8 AS now
FROM "public"."session" AS t
WHERE t.id = ANY($1)
  AND t.expiry > now()
