DELETE FROM "public"."session" AS t
WHERE t.id = $1
RETURNING t.expiry AS expires, t.user_id AS user_id
