//! The cookie that carries the token: its attributes and signature, the cookies of a request,
//! and the headers of a response. It does no I/O and doesn't know sessions.

mod attributes;
mod request;
mod response;
pub(crate) mod signing;

pub(crate) use attributes::{CookieConfig, NamedBy, Scope, is_attribute_byte};
pub use attributes::{CookieLifetime, CookiePriority};
pub(crate) use request::{Cookies, first_value, last_value, presented};
#[cfg(feature = "testing")]
pub(crate) use response::set_by;
pub(crate) use response::{
    attach, forbid_shared_caching, is_set, keep_cookies_of_other_layers, vary_by,
};

#[cfg(test)]
mod tests;
