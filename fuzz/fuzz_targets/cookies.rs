//! What a request's cookies say of its session, in both formats.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| axum_pg_session::fuzzing::cookies(data));
