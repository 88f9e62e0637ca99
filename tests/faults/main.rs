//! What a site does when its database fails. Each fault is real.
//!
//! `cargo test --test faults -- --nocapture` prints for each fault how long it took from its end
//! until a session was served.

mod changes;
mod failover;
mod network;
mod overload;
mod server;
mod settings;
mod support;
