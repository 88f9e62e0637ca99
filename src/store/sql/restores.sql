SELECT pg_catalog.set_config('axum_pg_session.restores', $1, true) AS restores
