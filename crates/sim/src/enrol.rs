//! Joining: a key made here, a join token, and the certificate that the hub gives for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use datacentered_agent_lib::identity::JoinToken;
use datacentered_link::tls::{self, Fingerprint, Identity, Pin, TlsError};
use datacentered_link::{Called, Handler, Request};
use datacentered_proto::operations::HostEnrol;
use datacentered_proto::ops::host::{EnrolParams, EnrolReply, Facts};
use datacentered_proto::ops::session::AgentHello;
use datacentered_proto::{ALPN_AGENT, Code, Error, Timestamp};
use rcgen::{CertificateParams, KeyPair};
use rustls::ClientConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::time::sleep;

use super::dial::{ConnectError, Dialler};

/// Tries at an enrolment that many make at the same time.
const TRIES: u32 = 20;

/// Pause between them, where the hub names none.
const PAUSE: Duration = Duration::from_millis(500);

/// Why a host could not join.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// Its key or certificate cannot be used.
    #[error("a host's key cannot be used: {0}")]
    Key(String),
    /// The hub cannot be reached.
    #[error("a host cannot join: {0}")]
    Connect(String),
    /// The hub does not take it.
    #[error("the hub did not enrol a host: {0}")]
    Refused(Error),
}

impl From<TlsError> for EnrolError {
    fn from(error: TlsError) -> Self {
        Self::Key(error.to_string())
    }
}

/// What a host asks for.
pub(crate) struct Wanted {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) facts: Facts,
    pub(crate) agent: AgentHello,
    pub(crate) now: Timestamp,
}

/// A host that has joined.
pub(crate) struct Enrolled {
    /// The name that it was given.
    pub(crate) name: String,
    /// With the certificate that the hub gave it.
    pub(crate) tls: Arc<ClientConfig>,
}

/// Joins as an agent does: dials with a self-signed certificate, proves the token, pins the hub's CA.
pub(crate) async fn enrol(
    dialler: &Dialler,
    token: &JoinToken,
    wanted: Wanted,
) -> Result<Enrolled, EnrolError> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(unusable)?;
    let private = PrivatePkcs8KeyDer::from(key.serialize_der());
    let own = CertificateParams::default().self_signed(&key).map_err(unusable)?;
    let ca = token.ca_fingerprint();
    let tls = config(own.der().clone(), private.clone_key(), ca)?;
    let params = EnrolParams {
        token: token.secret().to_owned(),
        name: wanted.name,
        labels: wanted.labels,
        facts: wanted.facts,
    };
    let mut tries = TRIES;
    let reply = loop {
        tries -= 1;
        match ask(dialler, &tls, &params, &wanted.agent, wanted.now).await {
            Ok(reply) => break reply,
            Err(Asked::Final(error)) => return Err(error),
            Err(Asked::Again(error, _)) if tries == 0 => return Err(error),
            Err(Asked::Again(_, after)) => sleep(after).await,
        }
    };
    let issued = CertificateDer::from_pem_slice(reply.certificate.as_bytes())
        .map_err(|error| EnrolError::Key(format!("the hub's certificate for it cannot be read: {error}")))?;
    Ok(Enrolled { name: reply.name, tls: config(issued, private, ca)? })
}

/// How an attempt failed.
enum Asked {
    Again(EnrolError, Duration),
    Final(EnrolError),
}

async fn ask(
    dialler: &Dialler,
    tls: &Arc<ClientConfig>,
    params: &EnrolParams,
    agent: &AgentHello,
    now: Timestamp,
) -> Result<EnrolReply, Asked> {
    let connected = match dialler.connect(tls.clone(), Arc::new(Nothing), agent.clone(), now).await {
        Ok(connected) => connected,
        Err(ConnectError::Hello(error)) => return Err(sorted(error)),
        Err(error) => return Err(Asked::Again(EnrolError::Connect(error.to_string()), PAUSE)),
    };
    let answer = connected.link.call::<HostEnrol>(params).await;
    connected.part("enrolled").await;
    answer.map_err(sorted)
}

fn sorted(error: Error) -> Asked {
    match error.code {
        Code::Unavailable | Code::Indeterminate | Code::Limited | Code::Internal => {
            let after = error.retry_after_ms.map_or(PAUSE, Duration::from_millis);
            Asked::Again(EnrolError::Refused(error), after)
        }
        _ => Asked::Final(EnrolError::Refused(error)),
    }
}

fn config(
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
    ca: Fingerprint,
) -> Result<Arc<ClientConfig>, TlsError> {
    let identity = Identity { chain: vec![certificate], key: PrivateKeyDer::Pkcs8(key) };
    tls::client_config(&[Pin::Authority(ca)], Some(identity), &[ALPN_AGENT])
}

fn unusable(error: rcgen::Error) -> EnrolError {
    EnrolError::Key(error.to_string())
}

/// Answers nothing: a host that is joining has nothing to offer yet.
#[derive(Debug)]
struct Nothing;

impl Handler for Nothing {
    fn call(&self, _: Request) -> Called {
        Called::Now(Err(Error::unavailable("this host is joining; it connects again at once")))
    }
}
