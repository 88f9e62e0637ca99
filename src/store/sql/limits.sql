SELECT pg_catalog.set_config('statement_timeout', $1, true) AS statement,
       pg_catalog.set_config('lock_timeout', $2, true) AS row_lock
