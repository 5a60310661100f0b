//! See `kubeless_fuzz::bodies::yaml_to_resource`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| kubeless_fuzz::bodies::yaml_to_resource(input));
