SELECT t.id
FROM "public"."session" AS t
WHERE t.id > $1
  AND t.expiry > now()
  AND (date_part('epoch', t.created) <= $2 OR t.created IS NULL)
ORDER BY t.id
LIMIT $3
