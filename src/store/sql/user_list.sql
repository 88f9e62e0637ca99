SELECT t.id,
       t.expiry AS expires,
       t.created AS created,
       t.last_seen AS seen,
       t.device::text AS device
FROM "public"."session" AS t
WHERE t.user_id = $1
  AND t.expiry > now()
ORDER BY t.created DESC NULLS LAST, t.id
