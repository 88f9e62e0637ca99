SELECT t.id,
       t.created AS created
FROM "public"."session" AS t
WHERE (t.created IS NULL OR pg_catalog.date_part('epoch', t.created) > $1)
  AND t.expiry > pg_catalog.now()
ORDER BY t.id
