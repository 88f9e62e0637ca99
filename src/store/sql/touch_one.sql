UPDATE "public"."session" AS t
SET expiry = to_timestamp(LEAST(date_part('epoch', now()) + $3, $4)),
    last_seen = now()
WHERE t.id = $1
  AND t.expiry IS NOT DISTINCT FROM to_timestamp($2)
  AND t.expiry > now()
RETURNING t.id, t.expiry AS expires
