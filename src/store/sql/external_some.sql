SELECT t.id
FROM "public"."session" AS t
WHERE t.external_id = $1
  AND t.expiry > pg_catalog.now()
LIMIT $2
