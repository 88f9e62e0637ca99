WITH dead AS MATERIALIZED (
    SELECT t.id
    FROM "public"."session" AS t
    WHERE t.expiry <= pg_catalog.now()
    ORDER BY t.expiry
    LIMIT $1
)
DELETE FROM "public"."session" AS t
WHERE t.id IN (SELECT dead.id FROM dead)
  AND t.expiry <= pg_catalog.now()
RETURNING t.id, t.user_id AS user_id, CASE WHEN pg_catalog.pg_column_size(t.session) < 512 THEN CASE WHEN pg_catalog.strpos(t.session::text, '"successor"') > 0 THEN t.session::text END END AS session
