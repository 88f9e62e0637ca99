SELECT t.id
FROM "public"."session" AS t
WHERE t.expiry <= pg_catalog.now()
  AND t.id <> ALL($2)
ORDER BY t.expiry
LIMIT $1
