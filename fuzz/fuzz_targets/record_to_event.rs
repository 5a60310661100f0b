//! See `kubeless_fuzz::bodies::record_to_event`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| kubeless_fuzz::bodies::record_to_event(input));
