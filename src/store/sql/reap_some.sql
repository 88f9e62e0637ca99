DELETE FROM "public"."session" AS t
WHERE t.id = ANY($1)
  AND t.expiry <= pg_catalog.now()
RETURNING t.id, t.user_id AS user_id, CASE WHEN pg_catalog.pg_column_size(t.session) < 512 THEN CASE WHEN pg_catalog.strpos(t.session::text, '"successor"') > 0 THEN t.session::text END END AS session
