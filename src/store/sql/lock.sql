SELECT t.id,
       t.session::text AS session,
       t.expiry AS expires,
       t.created AS created,
       pg_catalog.now() AS now,
       t.last_seen AS seen,
       t.user_id AS user_id
FROM "public"."session" AS t
WHERE t.id = $1
  AND t.expiry > pg_catalog.now()
FOR UPDATE
