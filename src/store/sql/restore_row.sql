INSERT INTO "public"."session" AS n (id, expiry, session
    , last_seen -- if carried last_seen
    -- carried columns
)
SELECT $1,
       pg_catalog.to_timestamp(LEAST(extract(epoch FROM pg_catalog.now())::float8 + $3, $4)),
       $2::json
       , pg_catalog.now() -- if carried last_seen
       -- carried values
FROM LATERAL (SELECT ($5::text::"public"."session").*) AS t
