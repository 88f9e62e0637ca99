INSERT INTO "public"."session" AS t (id, expiry, session
    , created -- if carried created
    , user_id -- if carried user_id
    , last_seen -- if carried last_seen
    , device -- if carried device
    , external_id -- if carried external_id
)
SELECT $1,
       pg_catalog.to_timestamp(LEAST(extract(epoch FROM pg_catalog.now())::float8 + $3, $4)),
       $2::json
       , pg_catalog.now() -- if carried created
       , $5 -- if carried user_id
       , pg_catalog.now() -- if carried last_seen
       , $6::json -- if carried device
       , $7 -- if carried external_id
RETURNING t.expiry AS expires
