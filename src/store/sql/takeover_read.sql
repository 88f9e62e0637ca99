SELECT o.data AS data,
       o.expiry_date AS expires,
       NULL::text AS session
FROM "tower_sessions"."session" AS o
WHERE o.id = $1
  AND o.expiry_date > pg_catalog.now()
UNION ALL
SELECT NULL::bytea,
       NULL::timestamptz,
       t.session::text
FROM "public"."session" AS t
WHERE t.id = $2
  AND t.expiry > pg_catalog.now()
