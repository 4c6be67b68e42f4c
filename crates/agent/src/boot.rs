//! Which boot of the host this is: what tells a reboot from a lost shim.

use std::fmt;
use std::sync::Arc;

use crate::process::tree;

/// Why the boot's identity cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}; the agent needs a mounted /proc to tell a reboot from a lost process")]
pub struct BootError {
    /// The file.
    pub path: String,
    /// The kernel's words.
    #[source]
    pub source: std::io::Error,
}

/// Reads the boot's identity. Replaceable, so that a reboot can be simulated.
#[derive(Clone)]
pub struct BootReader(Arc<dyn Fn() -> Result<String, BootError> + Send + Sync>);

impl fmt::Debug for BootReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BootReader")
    }
}

impl BootReader {
    /// Reads it from the system.
    pub fn system() -> Self {
        Self(Arc::new(read_system))
    }

    /// Always this one: for tests.
    pub fn fixed(id: impl Into<String>) -> Self {
        let id = id.into();
        Self(Arc::new(move || Ok(id.clone())))
    }

    /// The boot's identity: equal within one boot, different in any other.
    ///
    /// # Errors
    /// Where /proc is not there.
    pub fn read(&self) -> Result<String, BootError> {
        (self.0)()
    }
}

/// The kernel's boot id with the start time of process 1: a container that restarts keeps the first and changes the
/// second.
fn read_system() -> Result<String, BootError> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    let id = std::fs::read_to_string(PATH).map_err(|source| BootError { path: PATH.into(), source })?;
    let init = tree::stat(1).map_err(|source| BootError { path: "/proc/1/stat".into(), source })?;
    Ok(format!("{}/{}", id.trim(), init.start_ticks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_identity_is_stable() {
        let reader = BootReader::system();
        assert_eq!(reader.read().expect("reads"), reader.read().expect("reads"));
        assert!(reader.read().expect("reads").len() > 36);
    }
}
