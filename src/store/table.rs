//! The table: its name, its columns, the statements that fit them, and its clock. Inspects it
//! and migrates it. Nothing here knows a session, and nothing below it knows a column.

mod clock;
pub(super) mod columns;
mod engine;
pub(super) mod handle;
pub(super) mod inspect;
pub(super) mod migrate;
pub(super) mod name;
mod render;
pub(super) mod report;
mod requirements;
pub(super) mod statements;
pub(super) mod timestamp;
mod tombstones;
