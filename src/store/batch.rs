//! One statement for many rows. Knows no session: neither what is saved, nor why.

pub(super) mod execute;
mod pace;
pub(super) mod parts;
pub(super) mod queue;
pub(super) mod statements;
pub(super) mod until_free;
