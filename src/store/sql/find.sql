SELECT t.id
FROM "public"."session" AS t
WHERE sha256(convert_to(t.id, 'UTF8')) = $1
  AND t.expiry > now()
