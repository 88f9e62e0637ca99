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
