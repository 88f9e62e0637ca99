//! Servers that require TLS, with a TLS library and without one.

mod support;

#[cfg(any(feature = "rustls", feature = "aws-lc-rs", feature = "native-tls"))]
#[path = "../postgres/support/log.rs"]
mod log;
#[cfg(any(feature = "rustls", feature = "aws-lc-rs", feature = "native-tls"))]
mod with;
#[cfg(not(any(feature = "rustls", feature = "aws-lc-rs", feature = "native-tls")))]
mod without;
