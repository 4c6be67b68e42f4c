//! Who this host is: its key, made here and never leaving, and what the hub said when it enrolled.
//!
//! Everything lies in `DATA_DIR/agent/`, readable by the agent's user only:
//!
//! | file | what |
//! |---|---|
//! | `key.pem` | the private key (ECDSA P-256, PKCS #8) |
//! | `enrolment.json` | host id and name, the hub's addresses, the pin of its CA, the host's certificate |
//! | `lock` | held while an agent runs; names its process |
//!
//! One host has one identity: moving the directory moves the host, copying it makes two hosts that take each other's
//! place on the hub.

mod files;
mod token;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use datacentered_link::tls::Fingerprint;
use datacentered_link::url::HubUrl;
use datacentered_proto::HostId;
use datacentered_proto::ops::host::EnrolReply;
use rcgen::{CertificateParams, DnType, KeyPair, PublicKeyData as _};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};

pub use token::{InvalidToken, JoinToken, TokenSourceError, read_token};

/// Most bytes read of any file of the identity.
const MAX_FILE: u64 = 64 * 1024;

/// What the hub said at the enrolment.
const ENROLMENT_FILE: &str = "enrolment.json";

/// The version of `enrolment.json` that this build writes, and the newest that it reads.
const ENROLMENT_VERSION: u32 = 1;

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
        source: io::Error,
    },
    /// Another agent runs on the same data directory.
    #[error(
        "another agent ({holder}) runs with this data directory (it holds `{path}`); stop it first, or name another \
         directory with --data-dir"
    )]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// Which process, as far as it is known.
        holder: String,
    },
    /// The private key may be read by others.
    #[error(
        "others may read the private key `{path}` (mode {mode:04o}); run `chmod 600 {path}`. If somebody may have read \
         it: revoke the host on the hub, remove the directory and join again"
    )]
    KeyExposed {
        /// The key file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The key file is not a key.
    #[error(
        "`{path}` is not a usable private key ({why}); restore it from a backup, or remove the directory and join \
         again with a new token"
    )]
    Key {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The enrolment file is damaged.
    #[error(
        "`{path}` is damaged ({why}); restore it from a backup, or remove it and join again: the host keeps its key"
    )]
    Enrolment {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The enrolment file was written by a newer agent.
    #[error("`{path}` was written by a newer agent (version {version}); install that agent again")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// No enrolment, and no token to get one.
    #[error(
        "this host is not enrolled (there is no `{path}`); make a token on the hub with `datacentered token create \
         --join`, then run `join URL --token ...` here"
    )]
    NotEnrolled {
        /// The file that would be there.
        path: PathBuf,
    },
    /// Enrolled with another hub than the token's.
    #[error(
        "this host is already enrolled as `{name}` with another hub (CA {enrolled}, the token is of {token}); to move \
         it, stop the agent, remove `{directory}` and join again, or name another directory with --data-dir"
    )]
    AnotherHub {
        /// Its name there.
        name: String,
        /// The pin that is stored.
        enrolled: Fingerprint,
        /// The pin in the token.
        token: Fingerprint,
        /// The identity's directory.
        directory: PathBuf,
    },
    /// The hub's answer to the enrolment does not fit.
    #[error("the hub's answer to the enrolment cannot be used: {0}; look at the hub's version and log")]
    BadReply(String),
}

/// What the host keeps of its enrolment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    /// The file's version.
    v: u32,
    /// The host's identity in the hub's registry.
    pub host: HostId,
    /// The name that the hub gave it.
    pub name: String,
    /// Where the hub is reached, in the order in which to try.
    pub hubs: Vec<HubUrl>,
    /// The public key of the hub's CA. No other hub is ever talked to.
    #[serde(with = "as_text")]
    pub ca_fingerprint: Fingerprint,
    /// The host's certificate (PEM); absent where the hub's answer to the enrolment was lost. The hub knows the key, so that
    /// the self-signed certificate does as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// The hub's CA certificate (PEM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_certificate: Option<String>,
}

/// The host's key, what it is enrolled as, and the lock on both.
#[derive(Debug)]
pub struct Identity {
    directory: PathBuf,
    key: KeyPair,
    self_signed: CertificateDer<'static>,
    enrolment: Option<Enrolment>,
    // Held open: the lock ends with the process, however it ends.
    _lock: File,
}

impl Identity {
    /// Refuses a data directory that has no enrolment, without making anything in it: its name may be a mistake.
    pub fn must_exist(data_dir: &Path) -> Result<(), IdentityError> {
        let path = data_dir.join("agent").join(ENROLMENT_FILE);
        if path.exists() { Ok(()) } else { Err(IdentityError::NotEnrolled { path }) }
    }

    /// Opens the identity below a data directory and locks it; a host that has no key yet makes one.
    pub fn open(data_dir: &Path) -> Result<Self, IdentityError> {
        let directory = data_dir.join("agent");
        files::private_directory(&directory).map_err(at("create", &directory))?;
        let lock = lock(&directory.join("lock"))?;
        let key = load_or_make_key(&directory.join("key.pem"))?;
        let self_signed = self_sign(&key, &directory)?;
        let enrolment = load_enrolment(&directory.join(ENROLMENT_FILE))?;
        Ok(Self { directory, key, self_signed, enrolment, _lock: lock })
    }

    /// What the host is enrolled as.
    pub fn enrolment(&self) -> Option<&Enrolment> {
        self.enrolment.as_ref()
    }

    /// What the host is enrolled as, or what to do to enrol it.
    pub fn require_enrolment(&self) -> Result<&Enrolment, IdentityError> {
        self.enrolment.as_ref().ok_or_else(|| IdentityError::NotEnrolled { path: self.enrolment_path() })
    }

    /// Refuses a hub other than the one that the host is enrolled with.
    pub fn check_hub(&self, ca_fingerprint: Fingerprint) -> Result<(), IdentityError> {
        match &self.enrolment {
            Some(enrolment) if enrolment.ca_fingerprint != ca_fingerprint => Err(IdentityError::AnotherHub {
                name: enrolment.name.clone(),
                enrolled: enrolment.ca_fingerprint,
                token: ca_fingerprint,
                directory: self.directory.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// Keeps the hub's answer to an enrolment; it is on disk when this returns.
    pub fn enrolled(
        &mut self,
        hubs: Vec<HubUrl>,
        ca_fingerprint: Fingerprint,
        reply: EnrolReply,
    ) -> Result<&Enrolment, IdentityError> {
        let ours = self.key_fingerprint();
        if certificate_fingerprint(&reply.certificate)? != ours {
            return Err(IdentityError::BadReply("the certificate is not one of this host's key".into()));
        }
        if certificate_fingerprint(&reply.ca_certificate)? != ca_fingerprint {
            return Err(IdentityError::BadReply(
                "the CA certificate is not the one that the token names".into(),
            ));
        }
        self.store(Enrolment {
            v: ENROLMENT_VERSION,
            host: reply.host,
            name: reply.name,
            hubs,
            ca_fingerprint,
            certificate: Some(reply.certificate),
            ca_certificate: Some(reply.ca_certificate),
        })
    }

    /// Keeps an enrolment that the hub has done and whose answer was lost: the hub has said who this key is.
    pub fn known_as(
        &mut self,
        hubs: Vec<HubUrl>,
        ca_fingerprint: Fingerprint,
        host: HostId,
        name: String,
    ) -> Result<&Enrolment, IdentityError> {
        let (certificate, ca_certificate) = (None, None);
        self.store(Enrolment {
            v: ENROLMENT_VERSION,
            host,
            name,
            hubs,
            ca_fingerprint,
            certificate,
            ca_certificate,
        })
    }

    /// Keeps other addresses of the same hub.
    pub fn set_hubs(&mut self, hubs: Vec<HubUrl>) -> Result<(), IdentityError> {
        match self.enrolment.clone() {
            Some(enrolment) if enrolment.hubs != hubs => {
                self.store(Enrolment { hubs, ..enrolment }).map(|_| ())
            }
            _ => Ok(()),
        }
    }

    /// The certificate to show to the hub: the hub's own, or the self-signed one until there is one.
    pub fn certificate_chain(&self) -> Vec<CertificateDer<'static>> {
        let pem = self.enrolment.as_ref().and_then(|enrolment| enrolment.certificate.as_ref());
        let issued = pem.and_then(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).ok());
        vec![issued.unwrap_or_else(|| self.self_signed.clone())]
    }

    /// The private key.
    pub fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()))
    }

    /// The host's public key, as the hub lists it.
    pub fn key_fingerprint(&self) -> Fingerprint {
        Fingerprint::of_public_key(&self.key.subject_public_key_info())
    }

    fn enrolment_path(&self) -> PathBuf {
        self.directory.join(ENROLMENT_FILE)
    }

    fn store(&mut self, enrolment: Enrolment) -> Result<&Enrolment, IdentityError> {
        let path = self.enrolment_path();
        let json = serde_json::to_vec_pretty(&enrolment)
            .map_err(|error| IdentityError::BadReply(format!("it cannot be stored: {error}")))?;
        files::write_durably(&path, &json).map_err(at("write", &path))?;
        Ok(self.enrolment.insert(enrolment))
    }
}

fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    let path = path.to_owned();
    move |source| IdentityError::Io { action, path, source }
}

fn lock(path: &Path) -> Result<File, IdentityError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(path).map_err(at("open", path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let holder = match files::read_bounded(path, 64) {
                Ok(Some(pid)) if !pid.trim().is_empty() => format!("process {}", pid.trim()),
                _ => "an unknown process".to_owned(),
            };
            return Err(IdentityError::Locked { path: path.to_owned(), holder });
        }
        Err(TryLockError::Error(error)) => return Err(at("lock", path)(error)),
    }
    let write = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    write.map_err(at("write", path))?;
    Ok(file)
}

fn load_or_make_key(path: &Path) -> Result<KeyPair, IdentityError> {
    let unusable = |error: rcgen::Error| IdentityError::Key { path: path.to_owned(), why: error.to_string() };
    if let Some(pem) = files::read_bounded(path, MAX_FILE).map_err(at("read", path))? {
        if let Some(mode) = files::is_open_to_others(path).map_err(at("read", path))? {
            return Err(IdentityError::KeyExposed { path: path.to_owned(), mode });
        }
        return KeyPair::from_pem(&pem).map_err(unusable);
    }
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(unusable)?;
    files::write_durably(path, key.serialize_pem().as_bytes()).map_err(at("write", path))?;
    Ok(key)
}

/// A certificate that says nothing but the key: the hub knows hosts by their keys.
fn self_sign(key: &KeyPair, directory: &Path) -> Result<CertificateDer<'static>, IdentityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "datacentered agent");
    let certificate = params
        .self_signed(key)
        .map_err(|error| IdentityError::Key { path: directory.join("key.pem"), why: error.to_string() })?;
    Ok(certificate.der().clone())
}

fn load_enrolment(path: &Path) -> Result<Option<Enrolment>, IdentityError> {
    let damaged = |why: String| IdentityError::Enrolment { path: path.to_owned(), why };
    let Some(text) = files::read_bounded(path, MAX_FILE).map_err(at("read", path))? else { return Ok(None) };
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    // The version first: a newer form must not be mistaken for a damaged one.
    let Version { v } = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
    if v > ENROLMENT_VERSION {
        return Err(IdentityError::Newer { path: path.to_owned(), version: v });
    }
    let enrolment: Enrolment = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
    if enrolment.hubs.is_empty() {
        return Err(damaged("it names no hub".into()));
    }
    if let Some(certificate) = &enrolment.certificate {
        certificate_fingerprint(certificate).map_err(|_| damaged("its certificate is not one".into()))?;
    }
    Ok(Some(enrolment))
}

/// Whether a file is taken as an enrolment.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(path: &Path) -> bool {
    load_enrolment(path).is_ok_and(|enrolment| enrolment.is_some())
}

fn certificate_fingerprint(pem: &str) -> Result<Fingerprint, IdentityError> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok();
    der.and_then(|der| Fingerprint::of_certificate(&der))
        .ok_or_else(|| IdentityError::BadReply("a certificate in it cannot be read".into()))
}

/// A fingerprint in a file, as people know it.
mod as_text {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::Fingerprint;

    pub(super) fn serialize<S: Serializer>(value: &Fingerprint, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Fingerprint, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
