//! What the page shows, each by the series that it is made of.

/// One small picture with a figure.
pub(crate) struct Chart {
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) about: &'static str,
    /// The selector of what grows.
    pub(crate) of: &'static str,
    pub(crate) per: Per,
}

pub(crate) enum Per {
    Second,
    /// The growth of another selector, times a factor.
    Other(&'static str, u32),
}

/// From what visitors notice first to what keeps the table small.
pub(crate) const CHARTS: [Chart; 12] = [
    Chart {
        title: "Loads",
        unit: "/s",
        about: "rows that requests asked for",
        of: "axum_pg_session_operation_batch_size_sum{operation=\"load\"}",
        per: Per::Second,
    },
    Chart {
        title: "Saves",
        unit: "/s",
        about: "rows written, with many requests in one of them",
        of: "axum_pg_session_operation_batch_size_sum{operation=\"save\"}",
        per: Per::Second,
    },
    Chart {
        title: "Hit rate",
        unit: "%",
        about: "of the questions for a session that found one",
        of: "axum_pg_session_lookups_total{outcome=\"hit\"}",
        per: Per::Other("axum_pg_session_lookups_total", 100),
    },
    Chart {
        title: "Batch size",
        unit: "rows",
        about: "that one statement serves",
        of: "axum_pg_session_operation_batch_size_sum",
        per: Per::Other("axum_pg_session_operation_batch_size_count", 1),
    },
    Chart {
        title: "Queue time",
        unit: "ms",
        about: "that a row waits for the statements in flight",
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
        about: "from having a connection to its response",
        of: "axum_pg_session_operation_duration_seconds_sum",
        per: Per::Other("axum_pg_session_operation_duration_seconds_count", 1000),
    },
    Chart {
        title: "Conflicts",
        unit: "/s",
        about: "saves that another server overtook, made again",
        of: "axum_pg_session_conflicts_total",
        per: Per::Second,
    },
    Chart {
        title: "Touches skipped",
        unit: "/s",
        about: "as the last one is recent",
        of: "axum_pg_session_touches_skipped_total",
        per: Per::Second,
    },
    Chart {
        title: "Tokens that open nothing",
        unit: "/s",
        about: "stale cookies, or somebody guesses",
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
        title: "ReapSummary",
        unit: "/s",
        about: "expired rows that were deleted",
        of: "axum_pg_session_reaper_deleted_total",
        per: Per::Second,
    },
];
