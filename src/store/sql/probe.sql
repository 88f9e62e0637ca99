SELECT pg_catalog.pg_backend_pid() AS pid,
       (pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint AS started,
       pg_catalog.date_part('epoch', pg_catalog.statement_timestamp()) AS seen,
       (pg_catalog.now() <> pg_catalog.statement_timestamp()) AS is_in_a_transaction
