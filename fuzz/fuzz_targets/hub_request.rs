#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    (datacentered_fuzz::target("hub_request").expect("a target of that name"))(bytes)
});
