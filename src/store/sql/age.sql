UPDATE "public"."session" AS t
SET expiry = to_timestamp($2),
    created = t.created - make_interval(secs => $3),
    last_seen = t.last_seen - make_interval(secs => $4)
WHERE t.id = $1
