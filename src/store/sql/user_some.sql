SELECT t.id,
       t.created AS created
FROM "public"."session" AS t
WHERE t.user_id = (SELECT $1::text)
  AND t.id <> $2
  AND t.expiry > pg_catalog.now()
LIMIT $3
