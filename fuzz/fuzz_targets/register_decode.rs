//! See `kubeless_fuzz::bodies::register_decode`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| kubeless_fuzz::bodies::register_decode(input));
