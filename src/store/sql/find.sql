SELECT t.id
FROM "public"."session" AS t
WHERE pg_catalog.sha256(pg_catalog.convert_to(t.id, 'UTF8')) = $1
  AND t.expiry > pg_catalog.now()
