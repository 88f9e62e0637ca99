//! What stands where a token should be, in every way to read one.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| axum_pg_session::fuzzing::tokens(data));
