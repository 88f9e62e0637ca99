INSERT INTO "public"."session" AS n (id, expiry, session
    , created -- if carried created
    , user_id -- if carried user_id
    , last_seen -- if carried last_seen
    , device -- if carried device
    , external_id -- if carried external_id
    -- carried columns
)
SELECT $2,
       pg_catalog.to_timestamp(LEAST(extract(epoch FROM pg_catalog.now())::float8 + $4, $5)),
       $3::json
       , pg_catalog.now() -- if carried created
       , $6 -- if carried user_id
       , pg_catalog.now() -- if carried last_seen
       , $7::json -- if carried device
       , $8 -- if carried external_id
       -- carried values
FROM "public"."session" AS t
WHERE t.id = $1
