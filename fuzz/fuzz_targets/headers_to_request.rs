//! See `kubeless_fuzz::bodies::headers_to_request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| kubeless_fuzz::bodies::headers_to_request(input));
