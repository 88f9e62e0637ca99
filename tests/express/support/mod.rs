//! A site that Express and axum serve together.

pub(crate) mod site;

pub(crate) use crate::node::{Browser, Reply, SLACK, Server, Site, page};
pub(crate) use site::{EXPRESS_4, EXPRESS_5, KNEX, NOTHING, in_seconds};

/// Makes each of these scenarios a test with every generation of Express.
macro_rules! with_every_generation {
    ($($scenario:ident),+ $(,)?) => {
        $crate::node::scenarios::with_generations! {
            {with_express_4: EXPRESS_4, with_express_5: EXPRESS_5, with_knex: KNEX};
            $($scenario),+
        }
    };
}
pub(crate) use with_every_generation;

/// Makes each of these scenarios a test with connect-pg-simple only.
macro_rules! with_connect_pg_simple {
    ($($scenario:ident),+ $(,)?) => {
        $crate::node::scenarios::with_generations! {
            {with_express_4: EXPRESS_4, with_express_5: EXPRESS_5};
            $($scenario),+
        }
    };
}
pub(crate) use with_connect_pg_simple;
