SELECT pg_catalog.current_setting('transaction_read_only') = 'on' AS is_read_only
