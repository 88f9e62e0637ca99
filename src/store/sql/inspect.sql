SELECT a.attname::text AS name,
       format_type(a.atttypid, NULL) AS type,
       (a.attgenerated <> '' OR a.attidentity = 'a') AS is_generated,
       (a.atthasdef OR a.attidentity <> '') AS has_default,
       (a.attnotnull AND NOT a.atthasdef AND a.attidentity = '') AS is_required,
       (a.atttypid = 'pg_catalog.varchar'::regtype AND a.atttypmod BETWEEN 4 AND 43 + 3) AS is_short,
       EXISTS (
           SELECT FROM pg_catalog.pg_index AS i
           WHERE i.indrelid = c.oid
             AND i.indisvalid
             AND i.indisunique
             AND i.indimmediate
             AND i.indpred IS NULL
             AND i.indnkeyatts = 1
             AND i.indkey[0] = a.attnum
       ) AS is_unique,
       EXISTS (
           SELECT FROM pg_catalog.pg_index AS i
           WHERE i.indrelid = c.oid
             AND i.indisvalid
             AND i.indkey[0] = a.attnum
       ) AS is_indexed,
       (c.relkind = 'r') AS is_plain,
       has_schema_privilege(n.oid, 'USAGE') AS may_use_schema,
       has_table_privilege(c.oid, 'SELECT') AS may_select,
       has_table_privilege(c.oid, 'INSERT') AS may_insert,
       has_table_privilege(c.oid, 'UPDATE') AS may_update,
       has_table_privilege(c.oid, 'DELETE') AS may_delete
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid
WHERE n.nspname = $1
  AND c.relname = $2
  AND c.relkind IN ('r', 'p', 'f')
  AND a.attnum > 0
  AND NOT a.attisdropped
ORDER BY a.attnum
