//! The hub's side of a link, over real TLS on loopback: a CA, a registry of keys, and answers that a test can bend.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use datacentered_link::tls::{self, Fingerprint};
use datacentered_link::{Answer, Called, Handler, Limits, Link, Request, Side, websocket_config};
use datacentered_proto::operations::{HostEnrol, HostReport, JobReport as JobReportOperation, SessionHello};
use datacentered_proto::ops::Done;
use datacentered_proto::ops::host::{EnrolParams, EnrolReply, Facts, ReportParams};
use datacentered_proto::ops::job::JobReport;
use datacentered_proto::ops::session::{HelloParams, HelloReply, Subject};
use datacentered_proto::{ALPN_AGENT, Error, HostId, Operation, PROTOCOL, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    PublicKeyData, SignatureAlgorithm,
};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

/// The secret that the hub's one join token has.
pub(crate) const SECRET: &str = "a_secret-with_underscores";

/// Longest wait of any test for something that has to happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a test has told the hub to do, and what the hub has seen.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) registry: HashMap<Fingerprint, (HostId, String)>,
    pub(crate) enrolments: Vec<EnrolParams>,
    pub(crate) hellos: Vec<HelloParams>,
    pub(crate) facts: Vec<Facts>,
    pub(crate) reports: Vec<JobReport>,
    pub(crate) links: Vec<Link>,
    /// Whether the client's certificate was the hub's own, by connection.
    pub(crate) issued: Vec<bool>,
    pub(crate) connections: usize,
    /// Answers a greeting with this.
    pub(crate) refuse: Option<Error>,
    /// The protocol version to claim.
    pub(crate) protocol: Option<u32>,
    pub(crate) epoch: String,
    /// Answers to the next reports; `Ok` when used up.
    pub(crate) report_errors: VecDeque<Error>,
    /// How often the link is cut instead of answering an enrolment.
    pub(crate) lose_enrolments: usize,
    /// Whether a key that is in the registry may not enrol again.
    pub(crate) forbid_repeats: bool,
}

pub(crate) struct FakeHub {
    pub(crate) address: SocketAddr,
    pub(crate) state: Arc<Mutex<State>>,
    ca: Fingerprint,
    _accept: AbortOnDropHandle<()>,
}

impl FakeHub {
    pub(crate) async fn start() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("key")).expect("CA");
        let fingerprint = Fingerprint::of_certificate(ca.der()).expect("fingerprint");
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = params.signed_by(&key, &ca).expect("leaf");
        let mut config = ServerConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(tls::any_client_certificate())
            .with_single_cert(
                vec![leaf.der().clone(), ca.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .expect("server config");
        config.alpn_protocols = vec![ALPN_AGENT.as_bytes().to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("address");
        let state = Arc::new(Mutex::new(State { epoch: "e1".into(), ..State::default() }));
        let (acceptor, ca, shared) = (TlsAcceptor::from(Arc::new(config)), Arc::new(ca), state.clone());
        let accept = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                shared.lock().expect("lock").connections += 1;
                connections.spawn(connection(stream, acceptor.clone(), ca.clone(), shared.clone()));
            }
        });
        Self { address, state, ca: fingerprint, _accept: AbortOnDropHandle::new(accept) }
    }

    pub(crate) fn token(&self) -> String {
        format!("dcj_{SECRET}_{}", self.ca)
    }

    pub(crate) fn with<R>(&self, look: impl FnOnce(&mut State) -> R) -> R {
        look(&mut self.state.lock().expect("lock"))
    }

    /// Waits until `look` finds what it looks for.
    pub(crate) async fn until<R>(&self, what: &str, mut look: impl FnMut(&mut State) -> Option<R>) -> R {
        let search = async {
            loop {
                if let Some(found) = self.with(&mut look) {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, search).await.unwrap_or_else(|_| panic!("never happened: {what}"))
    }

    /// The newest link on which a host has said hello, once there are `count` of them.
    pub(crate) async fn link(&self, count: usize) -> Link {
        self.until("a link", |state| (state.links.len() >= count).then(|| state.links.last().cloned())?).await
    }
}

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    ca: Arc<CertifiedIssuer<'static, KeyPair>>,
    state: Arc<Mutex<State>>,
) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).cloned();
    let certificate = certificate.expect("client certificates are required").into_owned();
    let limits = Limits::default();
    let config = Some(websocket_config(&limits));
    let Ok(ws) = tokio_tungstenite::accept_async_with_config(stream, config).await else { return };
    let handler = Arc::new(HubSide { key: HostKey::of(&certificate), certificate, ca, state });
    let (_link, driver) = Link::start(ws, Side::Accepted, handler, limits);
    driver.await;
}

struct HubSide {
    key: HostKey,
    certificate: CertificateDer<'static>,
    ca: Arc<CertifiedIssuer<'static, KeyPair>>,
    state: Arc<Mutex<State>>,
}

impl Handler for HubSide {
    fn call(&self, request: Request) -> Called {
        let mut state = self.state.lock().expect("lock");
        let answer = match request.method.as_str() {
            name if name == SessionHello::SPEC.name => self.hello(&request, &mut state),
            name if name == HostEnrol::SPEC.name => self.enrol(&request, &mut state),
            name if name == HostReport::SPEC.name => request.params().and_then(|params: ReportParams| {
                state.facts.push(params.facts);
                Answer::of(&Done {})
            }),
            name if name == JobReportOperation::SPEC.name => {
                request.params().and_then(|report: JobReport| {
                    if let Some(error) = state.report_errors.pop_front() {
                        return Err(error);
                    }
                    state.reports.push(report);
                    Answer::of(&Done {})
                })
            }
            _ => return Called::NoSuchMethod,
        };
        Called::Now(answer)
    }
}

impl HubSide {
    fn hello(&self, request: &Request, state: &mut State) -> Result<Answer, Error> {
        let params: HelloParams = request.params()?;
        state.hellos.push(params);
        if let Some(error) = &state.refuse {
            return Err(error.clone());
        }
        let subject = match state.registry.get(&self.key.fingerprint) {
            Some((id, name)) => Subject::Host { id: *id, name: name.clone() },
            None => Subject::UnknownHost,
        };
        if matches!(subject, Subject::Host { .. }) {
            state.links.push(request.link.clone());
            let issuer = x509_parser::parse_x509_certificate(&self.certificate).expect("certificate").1;
            let ca = x509_parser::parse_x509_certificate(self.ca.der()).expect("certificate").1;
            state.issued.push(issuer.verify_signature(Some(ca.public_key())).is_ok());
        }
        Answer::of(&HelloReply {
            protocol: state.protocol.unwrap_or(PROTOCOL),
            capabilities: Vec::new(),
            session: "0192d3b0-5f7e-7c51-9b0e-3f1c2a4d5e6f".parse().expect("id"),
            version: "0.0.0".into(),
            epoch: state.epoch.clone(),
            subject,
            heartbeat_ms: 8000,
            reconnect_slot_ms: 1,
            now: Timestamp::EPOCH,
        })
    }

    fn enrol(&self, request: &Request, state: &mut State) -> Result<Answer, Error> {
        let params: EnrolParams = request.params()?;
        if params.token != SECRET {
            return Err(Error::forbidden("no such token"));
        }
        let known = state.registry.contains_key(&self.key.fingerprint);
        if known && state.forbid_repeats {
            return Err(Error::forbidden("this host is enrolled"));
        }
        let host: HostId = "0192d3b0-5f7e-7c51-9b0e-000000000001".parse().expect("id");
        state.registry.insert(self.key.fingerprint, (host, params.name.clone()));
        let name = params.name.clone();
        state.enrolments.push(params);
        if state.lose_enrolments > 0 {
            state.lose_enrolments -= 1;
            request.link.close("cut by the test");
            return Err(Error::unavailable("cut by the test"));
        }
        Answer::of(&EnrolReply {
            host,
            name,
            certificate: CertificateParams::default().signed_by(&self.key, &*self.ca).expect("signs").pem(),
            ca_certificate: self.ca.pem(),
        })
    }
}

/// A host's public key, as it stands in its certificate.
struct HostKey {
    fingerprint: Fingerprint,
    point: Vec<u8>,
}

impl HostKey {
    fn of(certificate: &[u8]) -> Self {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).expect("certificate");
        Self {
            fingerprint: Fingerprint::of_certificate(certificate).expect("fingerprint"),
            point: parsed.public_key().subject_public_key.data.to_vec(),
        }
    }
}

impl PublicKeyData for HostKey {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}
