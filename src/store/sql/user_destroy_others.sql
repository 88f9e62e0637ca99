DELETE FROM "public"."session" AS t
WHERE t.user_id = $1
  AND t.id <> $2
RETURNING t.expiry AS expires
