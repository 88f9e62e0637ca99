SELECT (t.*)::text AS row_as_text
FROM "public"."session" AS t
WHERE t.id = $1
