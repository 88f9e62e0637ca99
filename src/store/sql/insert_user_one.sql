INSERT INTO "public"."session" AS t (id, expiry, session
    , user_id -- if carried user_id
)
SELECT $1,
       pg_catalog.to_timestamp(LEAST(pg_catalog.date_part('epoch', pg_catalog.now()) + $3, $4)),
       $2::json
       , $5 -- if carried user_id
ON CONFLICT DO NOTHING
RETURNING t.id, t.expiry AS expires
