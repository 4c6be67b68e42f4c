//! A small hub: TLS, HTTP/1.1 and links, on a loopback port.

use std::net::SocketAddr;
use std::sync::Arc;

use datacentered_link::tls::{Fingerprint, any_client_certificate, provider};
use datacentered_link::upgrade::{Origins, upgrade};
use datacentered_link::{Handler, Limits, Link, Side, socket};
use hyper::Response;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// A CA and the server's certificate by it.
pub(crate) struct Certificates {
    pub(crate) ca: CertifiedIssuer<'static, KeyPair>,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: Vec<u8>,
}

impl Certificates {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("key")).expect("ca");
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        let certificate = params.signed_by(&key, &ca).expect("certificate");
        let chain = vec![certificate.der().clone(), ca.der().clone()];
        Self { ca, chain, key: key.serialize_der() }
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of_certificate(&self.chain[0]).expect("fingerprint")
    }

    pub(crate) fn authority(&self) -> Fingerprint {
        Fingerprint::of_certificate(self.ca.der()).expect("fingerprint")
    }

    fn acceptor(&self, client_certificates: bool) -> TlsAcceptor {
        let builder = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions");
        let builder = if client_certificates {
            builder.with_client_cert_verifier(any_client_certificate())
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::try_from(self.key.clone()).expect("key");
        let mut config = builder.with_single_cert(self.chain.clone(), key).expect("certificate");
        config.alpn_protocols = vec![b"datacentered/1".to_vec(), b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}

/// What a client showed: the key of its certificate and the protocol it asked for.
pub(crate) type Seen = (Option<Fingerprint>, Option<Vec<u8>>);

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) links: tokio::sync::mpsc::Receiver<(Link, Seen)>,
    /// Runs it.
    pub(crate) tasks: JoinSet<()>,
}

/// Serves links at `/link`, for everything that connects.
pub(crate) async fn serve(
    certificates: &Certificates,
    client_certificates: bool,
    limits: Limits,
    handler: Arc<dyn Handler>,
) -> Server {
    let acceptor = certificates.acceptor(client_certificates);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("address");
    let (found, links) = tokio::sync::mpsc::channel(16);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let Ok((tcp, _)) = listener.accept().await else { return };
            while connections.try_join_next().is_some() {}
            socket::tune(&tcp).expect("tunes");
            let (acceptor, limits) = (acceptor.clone(), limits.clone());
            let (handler, found) = (handler.clone(), found.clone());
            connections.spawn(async move {
                let Ok(tls) = acceptor.accept(tcp).await else { return };
                let (_, session) = tls.get_ref();
                let certificate = session.peer_certificates().and_then(|chain| chain.first());
                let seen = (
                    certificate.and_then(|certificate| Fingerprint::of_certificate(certificate)),
                    session.alpn_protocol().map(<[u8]>::to_vec),
                );
                let (upgraded, mut upgrading) = tokio::sync::mpsc::channel(1);
                let limits_of = limits.clone();
                let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
                    let answer = if request.uri().path() == "/link" {
                        match upgrade(&mut request, &Origins::default(), &limits_of) {
                            Ok((response, upgrading)) => {
                                upgraded.try_send(upgrading).expect("one upgrade a connection");
                                response.map(|()| String::new())
                            }
                            Err(refused) => refused.response(),
                        }
                    } else {
                        let mut response = Response::new("not here\n".to_owned());
                        *response.status_mut() = hyper::StatusCode::NOT_FOUND;
                        response
                    };
                    async { Ok::<_, std::convert::Infallible>(answer) }
                });
                let served = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(tls), service)
                    .with_upgrades()
                    .await;
                if served.is_err() {
                    return;
                }
                if let Ok(upgrading) = upgrading.try_recv() {
                    let ws = upgrading.websocket().await.expect("upgrades");
                    let (link, driver) = Link::start(ws, Side::Accepted, handler, limits);
                    let _ = found.send((link, seen)).await;
                    driver.await;
                }
            });
        }
    });
    Server { address, links, tasks }
}
