#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    (datacentered_fuzz::target("agent_config").expect("a target of that name"))(bytes)
});
