DELETE FROM "tower_sessions"."session" AS o
WHERE o.id = $1
  AND (o.data = $2 OR $2::bytea IS NULL)
  AND o.expiry_date > pg_catalog.now()
RETURNING o.expiry_date AS expires
