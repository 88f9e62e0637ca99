//! Tests in a real browser: headless Chromium, driven by ChromeDriver.
//!
//! `.ci/install` installs both. Where they can't be had the tests say that
//! they were skipped; on CI that is a failure.

mod account;
mod cookies;
mod dashboard;
mod defences;
mod devices;
mod pictures;
mod planted;
mod sockets;
mod support;
