-- Nothing here depends on the session's zone, as Citus demands of a function of
-- a column.
UPDATE "public"."session" AS t
SET expiry = pg_catalog.to_timestamp($2)
    , created = (t.created AT TIME ZONE 'UTC' - (pg_catalog.to_timestamp($3) - pg_catalog.to_timestamp(0))) AT TIME ZONE 'UTC' -- if created
    , last_seen = (t.last_seen AT TIME ZONE 'UTC' - (pg_catalog.to_timestamp($4) - pg_catalog.to_timestamp(0))) AT TIME ZONE 'UTC' -- if last_seen
WHERE t.id = $1
