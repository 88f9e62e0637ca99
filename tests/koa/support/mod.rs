//! A site that Koa and axum serve together.

pub(crate) mod site;

pub(crate) use crate::node::{Browser, Reply, SLACK, Server, Site, page};
pub(crate) use site::{KOA_1, KOA_2};

/// Makes each of these scenarios a test with either generation of Koa.
macro_rules! with_both_generations {
    ($($scenario:ident),+ $(,)?) => {$(
        mod $scenario {
            use crate::support::{KOA_1, KOA_2, Site};

            #[tokio::test]
            async fn with_koa_1() {
                if let Some(site) = Site::of(&KOA_1).await {
                    super::$scenario(site).await;
                }
            }

            #[tokio::test]
            async fn with_koa_2() {
                if let Some(site) = Site::of(&KOA_2).await {
                    super::$scenario(site).await;
                }
            }
        }
    )+};
}
pub(crate) use with_both_generations;
