SELECT a.attname::text AS name,
       a.attnum AS number,
       pg_catalog.format_type(a.atttypid, NULL) AS type,
       (a.attgenerated <> '' OR a.attidentity = 'a') AS is_generated,
       (a.attgenerated <> '') AS is_computed,
       (a.atthasdef OR a.attidentity <> '') AS has_default,
       a.attnotnull AS is_not_null,
       (a.atttypid = 'pg_catalog.varchar'::pg_catalog.regtype AND a.atttypmod BETWEEN 4 AND 43 + 3) AS is_short,
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
       ARRAY(
           SELECT k.numbers::text
           FROM pg_catalog.pg_index AS i
           CROSS JOIN LATERAL (
               SELECT ARRAY(
                   SELECT k.attnum
                   FROM pg_catalog.pg_attribute AS k
                   WHERE k.attrelid = c.oid
                     AND k.attnum > 0
                     AND k.attnum = ANY((i.indkey::int2[])[0:i.indnkeyatts - 1])
                   UNION
                   SELECT d.refobjsubid
                   FROM pg_catalog.pg_depend AS d
                   WHERE i.indexprs IS NOT NULL
                     AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                     AND d.objid = i.indexrelid
                     AND d.refclassid = d.classid
                     AND d.refobjid = c.oid
                     AND d.refobjsubid > 0
               ) AS numbers
           ) AS k
           WHERE i.indrelid = c.oid
             AND (i.indisunique OR i.indisexclusion)
             AND a.attnum = ANY(k.numbers)
       ) AS unique_keys,
       EXISTS (
           SELECT FROM pg_catalog.pg_index AS i
           WHERE i.indrelid = c.oid
             AND (i.indisunique OR i.indisexclusion)
             AND NOT i.indimmediate
       ) AS has_deferrable_key,
       ARRAY(
           SELECT d.refobjsubid
           FROM pg_catalog.pg_depend AS d
           LEFT JOIN pg_catalog.pg_attrdef AS e
               ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass
              AND d.objid = e.oid
           WHERE a.attgenerated <> ''
             AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
             AND d.refobjid = c.oid
             AND d.refobjsubid > 0
             AND d.refobjsubid <> a.attnum
             AND (
                 e.adrelid = c.oid AND e.adnum = a.attnum
                 OR d.classid = d.refclassid AND d.objid = c.oid AND d.objsubid = a.attnum
             )
       ) AS computed_from,
       EXISTS (
           SELECT FROM pg_catalog.pg_index AS i
           WHERE i.indrelid = c.oid
             AND i.indisvalid
             AND i.indkey[0] = a.attnum
       ) AS is_indexed,
       EXISTS (
           SELECT FROM pg_catalog.pg_index AS i
           WHERE i.indrelid = c.oid
             AND i.indisvalid
             AND i.indexprs IS NOT NULL
             AND pg_catalog.pg_get_indexdef(i.indexrelid) LIKE '%sha256%decode%replace%'
       ) AS has_handle_index,
       ARRAY(
           SELECT p.prosrc
           FROM pg_catalog.pg_trigger AS g
           JOIN pg_catalog.pg_proc AS p ON p.oid = g.tgfoid
           WHERE g.tgrelid = c.oid
             AND g.tgname::text = ANY($3)
             AND g.tgenabled IN ('O', 'A')
           ORDER BY pg_catalog.array_position($3, g.tgname::text)
       ) AS tombstone_functions,
       2 = (
           SELECT pg_catalog.count(*)
           FROM pg_catalog.pg_class AS r
           WHERE r.relnamespace = n.oid
             AND r.relname::text = ANY($4)
       ) AS has_tombstone_table,
       EXISTS (
           SELECT FROM pg_catalog.pg_attrdef AS e
           WHERE a.attgenerated <> ''
             AND e.adrelid = c.oid
             AND e.adnum = a.attnum
             AND pg_catalog.pg_get_expr(e.adbin, e.adrelid) LIKE '%\_user\_in%(%'
       ) AS is_of_passport,
       c.relkind::text AS kind,
       pg_catalog.pg_has_role(c.relowner, 'USAGE') AS may_alter,
       pg_catalog.row_security_active(c.oid) AS has_row_security,
       pg_catalog.getdatabaseencoding()::text AS encoding,
       pg_catalog.has_schema_privilege(n.oid, 'USAGE') AS may_use_schema,
       pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT') AS may_select,
       pg_catalog.has_column_privilege(c.oid, a.attnum, 'INSERT') AS may_insert,
       pg_catalog.has_column_privilege(c.oid, a.attnum, 'UPDATE') AS may_update,
       pg_catalog.has_table_privilege(c.oid, 'DELETE') AS may_delete
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid
WHERE n.nspname = $1
  AND c.relname = $2
  AND a.attnum > 0
  AND NOT a.attisdropped
ORDER BY a.attnum
