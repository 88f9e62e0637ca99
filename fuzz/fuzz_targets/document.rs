//! A document is read, written and read again.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| axum_pg_session::fuzzing::document(data));
