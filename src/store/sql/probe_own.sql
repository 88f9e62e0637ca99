SELECT pg_catalog.pg_backend_pid() AS pid,
       (pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint AS started,
       pg_catalog.date_part('epoch', pg_catalog.statement_timestamp()) AS seen,
       (pg_catalog.now() <> pg_catalog.statement_timestamp()) AS is_in_a_transaction,
       CASE
           WHEN pg_catalog.current_setting('statement_timeout', true) IN ('0', pg_catalog.current_setting('axum_pg_session.statement_timeout', true))
               THEN pg_catalog.set_config('axum_pg_session.statement_timeout', pg_catalog.set_config('statement_timeout', $1, false), false)
       END AS statement_timeout,
       CASE
           WHEN pg_catalog.current_setting('lock_timeout', true) IN ('0', pg_catalog.current_setting('axum_pg_session.lock_timeout', true))
               THEN pg_catalog.set_config('axum_pg_session.lock_timeout', pg_catalog.set_config('lock_timeout', $1, false), false)
       END AS lock_timeout,
       CASE
           WHEN pg_catalog.current_setting('idle_in_transaction_session_timeout', true) IN ('0', pg_catalog.current_setting('axum_pg_session.idle_in_transaction_session_timeout', true))
               THEN pg_catalog.set_config('axum_pg_session.idle_in_transaction_session_timeout', pg_catalog.set_config('idle_in_transaction_session_timeout', $1, false), false)
       END AS idle_in_transaction_session_timeout,
       CASE
           WHEN pg_catalog.current_setting('client_connection_check_interval', true) = '0'
               THEN pg_catalog.set_config('client_connection_check_interval', '1s', false)
       END AS client_connection_check_interval
