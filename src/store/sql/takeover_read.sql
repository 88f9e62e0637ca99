SELECT o.data AS data,
       o.expiry_date AS expires
FROM "tower_sessions"."session" AS o
WHERE o.id = $1
  AND o.expiry_date > pg_catalog.now()
