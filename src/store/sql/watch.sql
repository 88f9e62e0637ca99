SELECT t.id,
       CASE WHEN pg_catalog.date_part('epoch', t.expiry) < $2 THEN
           CASE WHEN pg_catalog.pg_column_size(t.session) < 512 THEN
               CASE WHEN pg_catalog.strpos(t.session::text, '"successor"') > 0 THEN t.session::text END
           END
       END AS session,
       t.expiry AS expires,
       pg_catalog.now() AS now,
       t.user_id AS user_id
FROM "public"."session" AS t
WHERE t.id = ANY($1)
