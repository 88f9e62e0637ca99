//! A site that Express and axum serve together.

pub(crate) mod site;

pub(crate) use crate::node::{Browser, Reply, SLACK, Server, Site, page};
pub(crate) use site::{EXPRESS_4, EXPRESS_5, KNEX, NOTHING, in_seconds};

/// Makes each of these scenarios a test with every generation of Express.
macro_rules! with_every_generation {
    ($($scenario:ident),+ $(,)?) => {$(
        mod $scenario {
            use crate::support::{EXPRESS_4, EXPRESS_5, KNEX, Site};

            #[tokio::test]
            async fn with_express_4() {
                if let Some(site) = Site::of(&EXPRESS_4).await {
                    super::$scenario(site).await;
                }
            }

            #[tokio::test]
            async fn with_express_5() {
                if let Some(site) = Site::of(&EXPRESS_5).await {
                    super::$scenario(site).await;
                }
            }

            #[tokio::test]
            async fn with_knex() {
                if let Some(site) = Site::of(&KNEX).await {
                    super::$scenario(site).await;
                }
            }
        }
    )+};
}
pub(crate) use with_every_generation;

/// Makes each of these scenarios a test with connect-pg-simple only.
macro_rules! with_connect_pg_simple {
    ($($scenario:ident),+ $(,)?) => {$(
        mod $scenario {
            use crate::support::{EXPRESS_4, EXPRESS_5, Site};

            #[tokio::test]
            async fn with_express_4() {
                if let Some(site) = Site::of(&EXPRESS_4).await {
                    super::$scenario(site).await;
                }
            }

            #[tokio::test]
            async fn with_express_5() {
                if let Some(site) = Site::of(&EXPRESS_5).await {
                    super::$scenario(site).await;
                }
            }
        }
    )+};
}
pub(crate) use with_connect_pg_simple;
