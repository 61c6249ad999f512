//! Fuzzes `targets::index`, as tests/hostile.rs does.
#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| hakobi_fuzz::targets::index(input));
