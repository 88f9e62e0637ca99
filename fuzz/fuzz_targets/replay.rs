//! A record of changes on another document than the one that it was made on.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| axum_pg_session::fuzzing::replay(data));
