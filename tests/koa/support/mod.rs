//! A site that Koa and axum serve together, its visitors, and its table.

use std::time::Duration;

pub(crate) mod browser;
pub(crate) mod http;
pub(crate) mod koa;
pub(crate) mod page;
pub(crate) mod role;
pub(crate) mod site;
pub(crate) mod table;

pub(crate) use browser::Browser;
pub(crate) use http::{Reply, Server};
pub(crate) use koa::Generation;
pub(crate) use site::Site;
pub(crate) use table::Table;

/// Far more than anything takes here; a wait that is this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Seconds that a busy machine may take between two looks at the clock, far
/// fewer than a life is long.
pub(crate) const SLACK: f64 = 100.0;

/// Makes each of these scenarios a test with either generation of Koa.
macro_rules! with_both_generations {
    ($($scenario:ident),+ $(,)?) => {$(
        mod $scenario {
            use crate::support::{Generation, Site};

            #[tokio::test]
            async fn with_koa_1() {
                if let Some(site) = Site::of(Generation::Koa1).await {
                    super::$scenario(site).await;
                }
            }

            #[tokio::test]
            async fn with_koa_2() {
                if let Some(site) = Site::of(Generation::Koa2).await {
                    super::$scenario(site).await;
                }
            }
        }
    )+};
}
pub(crate) use with_both_generations;
