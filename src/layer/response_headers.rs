//! The headers that a session adds to its response. This module writes what the
//! commit decided. It doesn't know how a cookie is formatted or signed.

use http::{HeaderMap, HeaderName, HeaderValue, header::COOKIE};

use crate::{
    LazySession,
    cookie::{attach, forbid_shared_caching, vary_by},
    format::CookieChange,
    id::sensitive,
    request::config::Config,
};

pub(super) const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");

/// Sets the browser's cookie, or removes it.
pub(super) fn write_cookie(session: &LazySession, change: &CookieChange, headers: &mut HeaderMap) {
    let config = session.config();
    let (cookie, line) = (session.cookie(), session.line());
    let format = config.store.format();
    match (change, &config.transport) {
        (CookieChange::None, _) | (CookieChange::RemoveFormer, Some(_)) => {}
        (CookieChange::RemoveFormer, None) => {
            let former = removal_of_former(session);
            if !former.is_empty() {
                attach(headers, former);
            }
        }
        (CookieChange::Set(ticket), None) => {
            let mut cookies = removal_of_others(session);
            cookies.extend(format.set(ticket, cookie, line));
            attach(headers, cookies);
        }
        (CookieChange::Remove(terms), None) => {
            let mut cookies = removal_of_others(session);
            cookies.extend(format.removal(terms, cookie, line));
            attach(headers, cookies);
        }
        (CookieChange::Set(ticket), Some(transport)) => {
            let token = format.encode(&ticket.token, cookie);
            transport.write(&sensitive(&token), headers);
            forbid_shared_caching(headers);
        }
        (CookieChange::Remove(_), Some(transport)) => {
            transport.remove(headers);
            forbid_shared_caching(headers);
        }
    }
}

/// Also removes the cookie of another system, if the request carried one that can lead to a
/// session.
fn removal_of_others(session: &LazySession) -> Vec<HeaderValue> {
    let mut cookies = removal_of_former(session);
    let takeover = session.takeover();
    cookies.extend(takeover.and_then(|takeover| takeover.removal(session.cookie())));
    cookies
}

/// Removes the cookies that the layer set under a former configuration. A browser
/// keeps a cookie of another scope beside the present one.
fn removal_of_former(session: &LazySession) -> Vec<HeaderValue> {
    let format = session.config().store.format();
    let former = session.cookie().former();
    former
        .flat_map(|cookie| format.removal(&None, &cookie, session.line()))
        .collect()
}

/// Sets `Clear-Site-Data`, unless the response sets a cookie, because the browser
/// would clear that cookie, too.
pub(super) fn clear_site_data(config: &Config, change: &CookieChange, headers: &mut HeaderMap) {
    if let (Some(data), CookieChange::None | CookieChange::Remove(_)) =
        (&config.clear_site_data, change)
    {
        headers.insert(CLEAR_SITE_DATA, data.clone());
    }
}

pub(super) fn vary(config: &Config, headers: &mut HeaderMap) {
    match &config.transport {
        Some(transport) => vary_by(&transport.varies_by(), headers),
        None => vary_by(&COOKIE, headers),
    }
}
