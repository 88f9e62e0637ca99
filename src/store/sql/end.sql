SELECT a.pid AS pid,
       (a.state LIKE 'idle%') AS is_idle,
       CASE
           WHEN a.wait_event = 'SyncRep' THEN false
           WHEN a.pid = ANY($3) THEN pg_catalog.pg_terminate_backend(a.pid)
           WHEN a.state LIKE 'idle%' THEN false
           WHEN a.pid = ANY($1) THEN pg_catalog.pg_cancel_backend(a.pid)
           WHEN a.pid = ANY($2) AND a.wait_event IN ('transactionid', 'tuple')
               THEN pg_catalog.pg_cancel_backend(a.pid)
           ELSE false
       END AS is_signaled
FROM pg_catalog.pg_stat_activity AS a
WHERE a.pid = ANY($4)
  AND ($5::double precision[])[pg_catalog.array_position($4, a.pid)] >= pg_catalog.date_part('epoch', a.backend_start)
