SELECT p.name AS name
FROM pg_catalog.pg_prepared_statements AS p
WHERE p.statement LIKE '%pg_prepared_statements%'
