SELECT t.id,
       t.expiry AS expires,
       t.created AS created,
       t.last_seen AS seen,
       t.device::text AS device
FROM "public"."session" AS t
WHERE t.user_id = $1
  AND t.expiry > pg_catalog.now()
  AND (
      t.created < $2::text::timestamptz
      OR (t.created IS NULL AND $2 IS NOT NULL)
      OR (
          t.created IS NOT DISTINCT FROM $2::text::timestamptz
          AND t.id > $3
      )
  )
ORDER BY t.created DESC NULLS LAST, t.id
LIMIT $4
