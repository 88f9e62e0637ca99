SELECT pg_catalog.now() AS now,
       pg_catalog.current_setting('default_transaction_isolation') AS isolation
