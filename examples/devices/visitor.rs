//! The user and the device of a request.

use std::net::SocketAddr;

use axum::{
    extract::{ConnectInfo, FromRequestParts, rejection::ExtensionRejection},
    http::{header, request::Parts},
};
use axum_pg_session::{Device, Session, SessionId};

use crate::error::PageError;

/// The first of these that a `User-Agent` contains is the browser.
const BROWSERS: [(&str, &str); 6] = [
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("Firefox/", "Firefox"),
    ("FxiOS/", "Firefox"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
];
const SYSTEMS: [(&str, &str); 6] = [
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("Windows", "Windows"),
    ("Mac OS X", "Mac"),
    ("Linux", "Linux"),
];

/// A user who is signed in. Other visitors are redirected to the login.
#[derive(Debug)]
pub(crate) struct SignedIn {
    pub(crate) session: Session,
    pub(crate) user: String,
    /// The public handle of this session.
    pub(crate) this: SessionId,
}

impl<S: Sync> FromRequestParts<S> for SignedIn {
    type Rejection = PageError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, PageError> {
        let session = Session::from_request_parts(parts, state).await?;
        let (Some(user), Some(this)) = (session.user_id(), session.id()) else {
            return Err(PageError::SignedOut);
        };
        Ok(Self {
            session,
            user,
            this,
        })
    }
}

/// What a login stores of the browser. Only its user sees it.
#[derive(Debug)]
pub(crate) struct Visitor {
    user_agent: String,
    address: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Visitor {
    type Rejection = ExtensionRejection;

    /// Behind a proxy, the address is in a header such as `X-Forwarded-For`. Make sure that only
    /// the proxy can set it.
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let ConnectInfo(address) =
            ConnectInfo::<SocketAddr>::from_request_parts(parts, state).await?;
        let user_agent = parts.headers.get(header::USER_AGENT);
        Ok(Self {
            user_agent: user_agent
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
                .to_owned(),
            address: address.ip().to_string(),
        })
    }
}

impl Visitor {
    pub(crate) fn device(&self) -> Device {
        Device::new()
            .with_label(label(&self.user_agent))
            .with_address(&self.address)
    }
}

/// A readable name of the device.
fn label(user_agent: &str) -> String {
    let first_of = |names: &[(&'static str, &'static str)]| {
        let found = names.iter().find(|(sign, _)| user_agent.contains(sign));
        found.map(|(_, name)| *name)
    };
    match (first_of(&BROWSERS), first_of(&SYSTEMS)) {
        (Some(browser), Some(system)) => format!("{browser} on {system}"),
        (Some(name), None) | (None, Some(name)) => name.to_owned(),
        (None, None) => "An unknown browser".to_owned(),
    }
}
