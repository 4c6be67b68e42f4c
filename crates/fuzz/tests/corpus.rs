//! Every target over its samples and random mutations of them. From a printed seed; repeat with DC_SEED. Longer with
//! DC_FUZZ_SECONDS; one target alone with DC_FUZZ_TARGET.

#[path = "corpus/allocations.rs"]
mod allocations;
#[path = "corpus/mutate.rs"]
mod mutate;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use datacentered_fuzz::TARGETS;
use mutate::Random;

/// Longest input that is made.
const MAX_INPUT: usize = 8 * 1024;

/// What a decoder may allocate at once beside what its input is worth: windows and buffers of fixed size.
const FREE_ALLOCATION: usize = 1 << 20;

/// How many times its input's length a decoder may allocate at once.
const ALLOCATION_PER_BYTE: usize = 64;

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn names_in(dir: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    entries.map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned()).collect()
}

fn samples(target: &str) -> Vec<Vec<u8>> {
    let dir = here("corpus").join(target);
    names_in(&dir).iter().map(|name| std::fs::read(dir.join(name)).expect("a sample")).collect()
}

/// Runs a target. What it was given is shown where it panics, so that it can become a sample.
fn run(name: &str, target: fn(&[u8]), input: &[u8]) {
    allocations::begin();
    let ran = std::panic::catch_unwind(|| target(input));
    let largest = allocations::end();
    if ran.is_err() {
        let kept = std::env::temp_dir().join(format!("fuzz-{name}-{:08x}", crc32fast::hash(input)));
        std::fs::write(&kept, input).expect("kept");
        panic!("{name} fails on {} bytes, kept as {}", input.len(), kept.display());
    }
    let allowed = FREE_ALLOCATION + ALLOCATION_PER_BYTE * input.len();
    assert!(
        largest <= allowed,
        "{name} allocates {largest} bytes at once for {:?}",
        input.escape_ascii().to_string()
    );
}

#[test]
fn samples_and_mutations_of_them_harm_nobody() {
    let setting = |name: &str| std::env::var(name).ok();
    let seed = setting("DC_SEED").and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(1, |now| now.subsec_nanos().into())
    });
    let seconds = setting("DC_FUZZ_SECONDS").and_then(|text| text.parse().ok()).unwrap_or(2.0);
    let only = setting("DC_FUZZ_TARGET");
    println!("DC_SEED={seed}");
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    let chosen: Vec<_> = TARGETS.iter().filter(|(name, _)| wanted(name)).collect();
    assert!(!chosen.is_empty(), "there is no target {only:?}");
    let share = Duration::from_secs_f64(seconds / chosen.len() as f64);
    for (name, target) in chosen {
        let samples = samples(name);
        for sample in &samples {
            run(name, *target, sample);
        }
        // A seed repeats a target's inputs whichever others run; a slower machine only makes fewer of them.
        let mut random = Random::new(seed ^ u64::from(crc32fast::hash(name.as_bytes())));
        let until = Instant::now() + share;
        let mut inputs = 0;
        while Instant::now() < until {
            let input = mutate::mutated(&mut random, &samples, MAX_INPUT);
            run(name, *target, &input);
            inputs += 1;
        }
        println!("{name}: {} samples, {inputs} mutations", samples.len());
    }
}

#[test]
fn a_decoder_that_believes_a_length_is_noticed() {
    fn credulous(input: &[u8]) {
        let length = usize::from(input[0]) << 20;
        std::hint::black_box(vec![0u8; length]);
    }
    run("one byte", credulous, &[0]);
    assert!(std::panic::catch_unwind(|| run("credulous", credulous, &[64])).is_err());
}

#[test]
fn every_target_has_samples_and_a_program_for_cargo_fuzz() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(targets.len(), TARGETS.len(), "a name is there twice");
    assert_eq!(names_in(&here("corpus")), targets);
    for name in &targets {
        assert!(!samples(name).is_empty(), "{name} has no sample");
    }
    let programs: BTreeSet<String> = targets.iter().map(|name| format!("{name}.rs")).collect();
    assert_eq!(names_in(&here("../../fuzz/fuzz_targets")), programs);
    let manifest = std::fs::read_to_string(here("../../fuzz/Cargo.toml")).expect("fuzz/Cargo.toml");
    for name in &targets {
        let program = std::fs::read_to_string(here("../../fuzz/fuzz_targets").join(format!("{name}.rs")));
        let program = program.expect("a program");
        assert!(program.contains(&format!("target(\"{name}\")")), "{name}.rs calls another target");
        assert!(
            manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")),
            "{name} is not in fuzz/Cargo.toml"
        );
    }
}
