//! SHA-256 of whole files, made while they are read or written.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use ring::digest::{Context, SHA256};

/// Bytes hashed in one go where a file is read only for its hash.
const BLOCK: usize = 256 * 1024;

/// A hash.
pub type Digest = [u8; 32];

/// A hash in the making.
#[derive(Clone)]
pub struct Hasher(Context);

impl Hasher {
    /// Of nothing so far.
    pub fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Adds the bytes of a file from `from` to `to`; fewer where the file has fewer. Returns where it stopped.
    pub fn read(&mut self, file: &File, from: u64, to: u64) -> io::Result<u64> {
        let mut block = vec![0; BLOCK];
        let mut at = from;
        while at < to {
            let want = usize::try_from(to - at).unwrap_or(BLOCK).min(BLOCK);
            let Some(room) = block.get_mut(..want) else { break };
            match file.read_at(room, at) {
                Ok(0) => break,
                Ok(read) => {
                    self.0.update(room.get(..read).unwrap_or_default());
                    at += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(at)
    }

    /// The hash of all that was added.
    pub fn finish(&self) -> Digest {
        let mut digest = [0; 32];
        digest.copy_from_slice(self.0.clone().finish().as_ref());
        digest
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hasher")
    }
}

/// As lower-case hex.
pub fn hex(digest: &Digest) -> String {
    use std::fmt::Write;
    digest.iter().fold(String::with_capacity(64), |mut text, byte| {
        // A string takes everything.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
