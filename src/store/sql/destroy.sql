DELETE FROM "public"."session" AS t
WHERE t.id = ANY($1)
RETURNING t.id, t.expiry AS expires, CASE WHEN pg_catalog.octet_length(t.session::text) < 160 THEN t.session::text END AS session
