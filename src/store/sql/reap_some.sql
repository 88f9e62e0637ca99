DELETE FROM "public"."session" AS t
WHERE t.id = ANY($1)
  AND t.expiry <= pg_catalog.now()
