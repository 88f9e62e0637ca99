SELECT pg_catalog.statement_timestamp() AS now,
       pg_catalog.current_setting('default_transaction_isolation') AS isolation
