SELECT (pg_catalog.now() AT TIME ZONE $1)::text AS local
