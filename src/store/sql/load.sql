SELECT t.id,
       t.session::text AS session,
       t.expiry AS expires,
       t.created AS created,
       now() AS now
FROM "public"."session" AS t
WHERE t.id = ANY($1)
  AND t.expiry > now()
