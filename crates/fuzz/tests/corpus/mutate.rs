//! Random changes to samples: what cargo-fuzz does better, for machines that have only a stable compiler.

/// A small generator: what matters is that a seed repeats it.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below.max(1)
    }
}

/// Numbers at which arithmetic goes wrong, as text.
const NUMBERS: [&str; 10] = [
    "0",
    "-1",
    "255",
    "65536",
    "4294967295",
    "9007199254740992",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "1e999",
];

/// Pieces that mean something to one decoder or another.
const PIECES: [&[u8]; 16] = [
    b"\"",
    b"{",
    b"}",
    b"[[[[",
    b",",
    b":",
    b"null",
    b"\\u0000",
    b"\\ud800",
    b"=",
    b"\0",
    b"\xff\xff",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"9999-12-31T23:59:59.999Z",
    "\u{1f600}".as_bytes(),
];

/// A few changes to one sample, or two samples joined.
pub(crate) fn mutated(random: &mut Random, samples: &[Vec<u8>], max: usize) -> Vec<u8> {
    let mut input = samples[random.below(samples.len())].clone();
    for _ in 0..=random.below(4) {
        change(random, &mut input, samples);
    }
    input.truncate(max);
    input
}

fn change(random: &mut Random, input: &mut Vec<u8>, samples: &[Vec<u8>]) {
    let at = random.below(input.len() + 1);
    let end = (at + random.below(16)).min(input.len());
    match random.below(9) {
        0 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = random.below(256) as u8;
            }
        }
        2 => drop(input.drain(at..end)),
        3 => {
            let copy = input[at..end].to_vec();
            input.splice(at..at, copy);
        }
        4 => {
            let piece = PIECES[random.below(PIECES.len())];
            input.splice(at..at, piece.iter().copied());
        }
        5 => {
            // Over what is there, so that lengths and numbers in binary forms become large.
            let piece = PIECES[random.below(PIECES.len())];
            let end = (at + piece.len()).min(input.len());
            input.splice(at..end, piece.iter().copied());
        }
        6 => number(random, input, at),
        7 => input.truncate(at),
        _ => {
            let other = &samples[random.below(samples.len())];
            let from = random.below(other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
    }
}

/// Puts another number in place of the next one behind `at`.
fn number(random: &mut Random, input: &mut Vec<u8>, at: usize) {
    let Some(from) = input[at..].iter().position(u8::is_ascii_digit).map(|skip| at + skip) else { return };
    let length = input[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let other = NUMBERS[random.below(NUMBERS.len())];
    input.splice(from..from + length, other.bytes());
}
