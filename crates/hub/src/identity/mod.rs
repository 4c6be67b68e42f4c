//! Who the hub is: its certificate authority, the certificates made with it, and the secret that tokens come from.
//!
//! Everything lies in `DATA_DIR/identity/`, readable by the hub's user only:
//!
//! | file | what |
//! |---|---|
//! | `ca.key`, `ca.pem` | the authority that agents pin (by its public key) and that signs their certificates |
//! | `hub.key` | the key of the agents' side of the port |
//! | `web.key` | the key of the web side, where the administrator brings no certificate |
//! | `master.secret` | 32 random bytes; tokens are derived from it, so that they need not be stored |
//!
//! Keys are made once and kept; the hub's own certificates are made anew from them at every start. What others pin is a
//! public key, never a certificate.

mod ca;
mod files;
mod restore;
mod spki;
mod tls;
mod web;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use datacentered_link::clock::Clock;
use datacentered_proto::{Error, HostId};
use ring::hmac;
use rustls::ServerConfig;

use crate::config::Config;

pub(crate) use restore::{begin_restore, restore_file};
pub use spki::HostKey;
pub(crate) use spki::{hex, sha256_hex};
pub(crate) use web::machine_name;

use ca::Authority;
use web::WebCertificate;

/// A certificate's key has its fingerprint; a public key that can be certified is whole.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(bytes: &[u8]) {
    use rcgen::PublicKeyData as _;
    if let Some(key) = HostKey::of_certificate(&bytes.into()) {
        assert!(key.fingerprint == sha256_hex(&key.spki) && key.spki.len() <= bytes.len());
    }
    if let Some(key) = spki::PublicKey::parse(bytes) {
        assert!(bytes.ends_with(key.der_bytes()) && !key.der_bytes().is_empty());
    }
}

/// The directory in the data directory.
pub const IDENTITY_DIR: &str = "identity";

/// Length of the master secret in bytes.
const MASTER_LEN: usize = 32;

/// Every file of the identity, by the name it has in the directory.
const FILES: [&str; 5] = ["ca.key", "ca.pem", "hub.key", "web.key", "master.secret"];

/// Why the identity cannot be used, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file or directory cannot be read or written.
    #[error("cannot {action} `{path}`; check that this user may, and that the disk is not full")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// A private file may be read by others.
    #[error(
        "others may read `{path}` (mode {mode:04o}); run `chmod 600 {path}`, and if somebody may have read it, start a new identity"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A file is not what it should be.
    #[error("`{path}` cannot be used ({why}); restore it from a backup")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// A file that others depend on is gone. Making a new one would lock every agent out.
    #[error(
        "`{path}` is missing while other files of the identity are there; restore it from a backup. To start over with \
         a new identity, which every agent has to join again, move the directory away"
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A restore into the directory did not finish.
    #[error("a restore into `{path}` is under way or has failed; empty the directory and restore again")]
    RestoreUnfinished {
        /// The data directory.
        path: PathBuf,
    },
    /// The administrator's certificate cannot be used.
    #[error("the web certificate `{path}` cannot be used: {why}; check --tls-cert and --tls-key (PEM)")]
    WebCertificate {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// A name for the web certificate is not one.
    #[error("`{name}` is not a name or address that a certificate can hold; correct `names` in hub.toml")]
    Name {
        /// The name.
        name: String,
    },
    /// The cryptography library refused.
    #[error("cannot make {what}: {why}")]
    Crypto {
        /// What was to be made.
        what: &'static str,
        /// What it says.
        why: String,
    },
}

/// The hub's identity. Cheap to clone.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    authority: Authority,
    web: WebCertificate,
    master: hmac::Key,
    agent_tls: Arc<ServerConfig>,
    web_tls: Arc<ServerConfig>,
    clock: Clock,
    directory: PathBuf,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("ca_fingerprint", &self.ca_fingerprint()).finish_non_exhaustive()
    }
}

impl Identity {
    /// Opens the identity in the data directory; makes it at the first start.
    pub fn open(config: &Config, clock: &Clock) -> Result<Self, IdentityError> {
        restore::check_finished(&config.data_dir)?;
        let directory = config.data_dir.join(IDENTITY_DIR);
        files::private_directory(&directory)?;
        let master = open_master(&directory)?;
        let authority = Authority::open(&directory)?;
        let web = WebCertificate::open(config, &directory, &authority, clock.wall())?;
        let agent_tls = tls::agent_config(&directory, &authority)?;
        let web_tls = tls::web_config(web.resolver())?;
        Ok(Self(Arc::new(Inner {
            authority,
            web,
            master: hmac::Key::new(hmac::HMAC_SHA256, &master),
            agent_tls,
            web_tls,
            clock: clock.clone(),
            directory,
        })))
    }

    /// SHA-256 of the authority's public key, lower-case hex: what agents pin.
    pub fn ca_fingerprint(&self) -> &str {
        self.0.authority.fingerprint()
    }

    /// The authority's certificate (PEM).
    pub fn ca_certificate_pem(&self) -> &str {
        self.0.authority.certificate_pem()
    }

    /// SHA-256 of the web certificate's public key, lower-case hex: what `login` shows and asks.
    pub fn web_fingerprint(&self) -> String {
        self.0.web.fingerprint()
    }

    /// Whether the web certificate is the administrator's own.
    pub fn own_web_certificate(&self) -> bool {
        self.0.web.is_own()
    }

    /// Reads the web certificate again. Where that fails, the one in use stays.
    pub fn reload_web(&self) -> Result<(), IdentityError> {
        self.0.web.reload(&self.0.authority, self.0.clock.wall())
    }

    /// A certificate (PEM) for a host's public key (SPKI, as seen in its TLS handshake).
    pub fn issue_host_certificate(&self, host: HostId, spki: &[u8]) -> Result<String, Error> {
        self.0.authority.issue_host(spki, &host.to_string())
    }

    /// HMAC-SHA256 with the master secret, for secrets that are derived instead of stored.
    pub fn derive(&self, purpose: &str, input: &[u8]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0.master);
        // The purpose is a literal without a zero byte, so that no two pairs give the same message.
        context.update(purpose.as_bytes());
        context.update(&[0]);
        context.update(input);
        let mut derived = [0; 32];
        derived.copy_from_slice(context.sign().as_ref());
        derived
    }

    /// The same as lower-case hex: a hash from which short inputs cannot be guessed without the master secret.
    pub fn keyed_hash(&self, purpose: &str, input: &[u8]) -> String {
        hex(&self.derive(purpose, input))
    }

    /// TLS for agents: the hub's own identity, a client certificate is required.
    pub(crate) fn agent_tls(&self) -> Arc<ServerConfig> {
        self.0.agent_tls.clone()
    }

    /// TLS for everyone else: the web certificate, no client certificate.
    pub(crate) fn web_tls(&self) -> Arc<ServerConfig> {
        self.0.web_tls.clone()
    }

    /// Every file of the identity with its path in the data directory, for backups.
    pub(crate) fn backup_files(&self) -> Result<Vec<(String, Bytes)>, IdentityError> {
        let mut found = Vec::new();
        for name in FILES {
            if let Some(content) = files::read_private(&self.0.directory.join(name))? {
                found.push((format!("{IDENTITY_DIR}/{name}"), Bytes::from(content)));
            }
        }
        Ok(found)
    }
}

fn open_master(directory: &Path) -> Result<Vec<u8>, IdentityError> {
    let path = directory.join("master.secret");
    if let Some(master) = files::read_private(&path)? {
        if master.len() != MASTER_LEN {
            return Err(IdentityError::Damaged { path, why: format!("it is not {MASTER_LEN} bytes long") });
        }
        return Ok(master);
    }
    // Written first of all files: where another is there, this one has been lost.
    if FILES.iter().any(|name| directory.join(name).exists()) {
        return Err(IdentityError::Missing { path });
    }
    let mut master = vec![0; MASTER_LEN];
    getrandom::fill(&mut master)
        .map_err(|error| IdentityError::Crypto { what: "a random secret", why: error.to_string() })?;
    files::write_private(&path, &master)?;
    Ok(master)
}

#[cfg(test)]
mod tests;
