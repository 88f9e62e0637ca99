SELECT t.id,
       t.created AS created
FROM "public"."session" AS t
WHERE t.user_id = $1
  AND t.id <> $2
  AND t.expiry > pg_catalog.now()
LIMIT $3
