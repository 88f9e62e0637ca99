//! Only what was signed is taken for signed.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| axum_pg_session::fuzzing::signature(data));
