SELECT a.pid || ' ' || a.backend_start AS backend
FROM pg_catalog.pg_stat_activity AS a
WHERE a.pid = pg_catalog.pg_backend_pid()
