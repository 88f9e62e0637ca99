SELECT t.id
FROM "public"."session" AS t
WHERE t.created IS NULL
  AND t.expiry > pg_catalog.now()
ORDER BY t.id
