DELETE FROM "public"."session" AS t
WHERE t.id = $1
RETURNING t.id, CASE WHEN octet_length(t.session::text) < 160 THEN t.session::text END AS session
