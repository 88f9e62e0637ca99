DELETE FROM "public"."session" AS t
WHERE t.id = ANY($2)
  AND t.user_id IS NOT DISTINCT FROM $1
  AND (t.expiry > pg_catalog.now()) IS TRUE
RETURNING t.id, t.expiry AS expires, t.user_id AS user_id
