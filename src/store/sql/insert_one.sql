INSERT INTO "public"."session" AS t (id, expiry, session)
VALUES ($1, to_timestamp(LEAST(date_part('epoch', now()) + $3, $4)), $2::json)
ON CONFLICT DO NOTHING
RETURNING t.id, t.expiry AS expires
