//! A browser, and a site for it.

pub(crate) mod chromium;
pub(crate) mod cookie;
pub(crate) mod example;
pub(crate) mod profile;
pub(crate) mod shop;
pub(crate) mod site;

pub(crate) use chromium::Chromium;
pub(crate) use cookie::{Cookie, Lifetime, PartitionKey};
pub(crate) use example::Example;
pub(crate) use profile::{Profile, Window};
pub(crate) use shop::Shop;
pub(crate) use site::Site;

/// A browser for one test, which is skipped if there is none.
macro_rules! chromium_or_skip {
    () => {
        match $crate::support::Chromium::start() {
            Some(chromium) => chromium,
            None => return,
        }
    };
}
pub(crate) use chromium_or_skip;
