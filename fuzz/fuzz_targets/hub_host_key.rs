#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    (datacentered_fuzz::target("hub_host_key").expect("a target of that name"))(bytes)
});
