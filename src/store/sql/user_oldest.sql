SELECT t.id
FROM "public"."session" AS t
WHERE t.user_id = $1
  AND t.id <> $2
  AND t.expiry > now()
ORDER BY t.created DESC NULLS LAST, t.id
OFFSET $3
