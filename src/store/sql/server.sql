SELECT pg_catalog.clock_timestamp() AS now,
       pg_catalog.current_setting('default_transaction_isolation') AS isolation
