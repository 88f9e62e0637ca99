SELECT t.id
FROM "public"."session" AS t
WHERE pg_catalog.sha256(pg_catalog.decode(pg_catalog.replace(t.id, E'\\', E'\\\\'), 'escape')) = $1
  AND t.expiry > pg_catalog.now()
