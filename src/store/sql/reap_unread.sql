DELETE FROM "public"."session" AS t
WHERE t.id = $1
  AND t.expiry <= pg_catalog.now()
RETURNING t.user_id AS user_id
