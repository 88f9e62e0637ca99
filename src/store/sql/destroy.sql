DELETE FROM "public"."session" AS t
WHERE t.id = ANY($1)
  AND (t.id = ANY($2) OR pg_catalog.octet_length(t.session::text) >= 160 OR pg_catalog.strpos(t.session::text, '"successor"') = 0)
RETURNING t.id, t.expiry AS expires, CASE WHEN pg_catalog.octet_length(t.session::text) < 160 THEN t.session::text END AS session, t.user_id AS user_id
