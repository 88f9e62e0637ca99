INSERT INTO "public"."session" AS t (id, expiry, session
    , user_id -- if carried user_id
)
SELECT d.id,
       pg_catalog.to_timestamp(LEAST(pg_catalog.date_part('epoch', pg_catalog.now()) + d.ttl, d.until)),
       d.session::json
       , d.user_id -- if carried user_id
FROM unnest($1::text[], $2::text[], $3::float8[], $4::float8[], $5::text[]) AS d(id, session, ttl, until, user_id)
ON CONFLICT DO NOTHING
RETURNING t.id, t.expiry AS expires
