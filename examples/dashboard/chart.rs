//! The charts of the page, each with the series that it shows.

/// A small chart with a figure.
pub(crate) struct Chart {
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) about: &'static str,
    /// The selector of the counter.
    pub(crate) of: &'static str,
    pub(crate) per: Per,
}

pub(crate) enum Per {
    Second,
    /// Per increment of another counter, times a factor.
    Other(&'static str, u32),
}

/// From those that visitors notice to those of the table.
pub(crate) const CHARTS: [Chart; 12] = [
    Chart {
        title: "Loads",
        unit: "/s",
        about: "rows that requests loaded",
        of: "axum_pg_session_operation_batch_size_sum{operation=\"load\"}",
        per: Per::Second,
    },
    Chart {
        title: "Saves",
        unit: "/s",
        about: "rows written, each for one request or several",
        of: "axum_pg_session_operation_batch_size_sum{operation=\"save\"}",
        per: Per::Second,
    },
    Chart {
        title: "Hit rate",
        unit: "%",
        about: "of the lookups that found a session",
        of: "axum_pg_session_lookups_total{outcome=\"hit\"}",
        per: Per::Other("axum_pg_session_lookups_total", 100),
    },
    Chart {
        title: "Batch size",
        unit: "rows",
        about: "per statement",
        of: "axum_pg_session_operation_batch_size_sum",
        per: Per::Other("axum_pg_session_operation_batch_size_count", 1),
    },
    Chart {
        title: "Queue time",
        unit: "ms",
        about: "that a row waits until its statement is sent",
        of: "axum_pg_session_operation_queue_time_seconds_sum",
        per: Per::Other("axum_pg_session_operation_queue_time_seconds_count", 1000),
    },
    Chart {
        title: "Waiting for a connection",
        unit: "ms",
        about: "for each statement",
        of: "axum_pg_session_connection_wait_time_seconds_sum",
        per: Per::Other("axum_pg_session_connection_wait_time_seconds_count", 1000),
    },
    Chart {
        title: "Statement",
        unit: "ms",
        about: "on its connection, without the wait for one",
        of: "axum_pg_session_operation_duration_seconds_sum",
        per: Per::Other("axum_pg_session_operation_duration_seconds_count", 1000),
    },
    Chart {
        title: "Conflicts",
        unit: "/s",
        about: "saves repeated after another server's save",
        of: "axum_pg_session_conflicts_total",
        per: Per::Second,
    },
    Chart {
        title: "Touches skipped",
        unit: "/s",
        about: "because the last touch was recent",
        of: "axum_pg_session_touches_skipped_total",
        per: Per::Second,
    },
    Chart {
        title: "Rejected tokens",
        unit: "/s",
        about: "stale cookies, or token guessing",
        of: "axum_pg_session_tokens_rejected_total",
        per: Per::Second,
    },
    Chart {
        title: "Failures",
        unit: "/s",
        about: "of loads, saves, touches and the reaper",
        of: "axum_pg_session_failures_total",
        per: Per::Second,
    },
    Chart {
        title: "Reaper",
        unit: "/s",
        about: "expired rows deleted",
        of: "axum_pg_session_reaper_deleted_total",
        per: Per::Second,
    },
];
