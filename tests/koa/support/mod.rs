//! A site that Koa and axum serve together.

pub(crate) mod site;

pub(crate) use crate::node::{Browser, Reply, SLACK, Server, Site, page};
pub(crate) use site::{KOA_1, KOA_2};

/// Makes each of these scenarios a test with either generation of Koa.
macro_rules! with_both_generations {
    ($($scenario:ident),+ $(,)?) => {
        $crate::node::scenarios::with_generations! {
            {with_koa_1: KOA_1, with_koa_2: KOA_2};
            $($scenario),+
        }
    };
}
pub(crate) use with_both_generations;
