SELECT t.id
FROM "public"."session" AS t
WHERE t.id > $1
  AND t.expiry > pg_catalog.now()
  AND pg_catalog.date_part('epoch', t.created) <= $2
ORDER BY t.id
LIMIT $3
