//! The hub that a simulation runs against.

use std::ffi::OsString;
use std::time::Duration;

use datacentered_client::{Client, ClientConfig, HubUrl};
use datacentered_proto::operations::TokenCreate;
use datacentered_proto::ops::access::{TokenCreateParams, TokenKind};
use datacentered_sim::JoinToken;

use super::process::{self, Usage};
use crate::commands::throwaway::place::Place;
use crate::commands::throwaway::server::Server;
use crate::failure::{Failure, Result};

/// How long the hub is away when it is killed.
pub(super) const DOWN: Duration = Duration::from_secs(2);

/// Join tokens that hosts take turns at: every use of one is written down behind the one before.
const TOKENS: u32 = 16;

/// A hub of our own.
#[derive(Debug)]
pub(super) struct Own<'a> {
    place: &'a Place,
    server: Option<Server>,
    url: Option<HubUrl>,
    /// What its processes that have ended took.
    spent: Usage,
}

impl<'a> Own<'a> {
    pub(super) fn new(place: &'a Place) -> Self {
        Self { place, server: None, url: None, spent: Usage::default() }
    }

    /// Starts it; from the second time on, on the port that it had.
    pub(super) async fn start(&mut self) -> Result<Client> {
        let listen = self.url.as_ref().map_or_else(|| "127.0.0.1:0".to_owned(), HubUrl::authority);
        let fixed = ["hub", "start", "--listen", &listen, "-o", "json", "--data-dir"].map(OsString::from);
        let args = fixed.into_iter().chain([self.place.hub_dir().into_os_string()]);
        let server = self.server.insert(Server::start("hub", self.place.path(), args)?);
        let listening = server.event("listening").await?;
        let url = listening.get("url").and_then(|url| url.as_str()).and_then(|url| url.parse().ok());
        self.url = Some(url.ok_or_else(|| Failure::failed("the hub did not say where it listens"))?);
        let socket = HubUrl::Unix { path: self.place.socket() };
        Ok(Client::connect(ClientConfig::new(vec![socket])).await?)
    }

    /// Ends it at once, as a crash would.
    pub(super) async fn kill(&mut self) {
        if let Some(server) = self.server.take() {
            self.spent = self.spent.plus(usage(&server));
            server.kill().await;
        }
    }

    /// Ends it in good order.
    pub(super) async fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop().await;
        }
    }

    /// What it has taken so far.
    pub(super) fn usage(&self) -> Usage {
        self.server.as_ref().map_or(self.spent, |server| self.spent.plus(usage(server)))
    }

    /// Tokens that let `hosts` join.
    pub(super) async fn join_tokens(&self, client: &Client, hosts: u32) -> Result<Vec<JoinToken>> {
        let mut tokens = Vec::new();
        for _ in 0..TOKENS.min(hosts) {
            let params = TokenCreateParams {
                key: client.clock().key(),
                kind: TokenKind::Join,
                name: "sim".into(),
                role: None,
                ttl_ms: None,
                uses: Some(hosts.div_ceil(TOKENS).max(1)),
                labels: [].into(),
            };
            let token = client.call::<TokenCreate>(&params).await?.token;
            tokens.push(token.parse().map_err(|error| Failure::failed(format!("the hub's token: {error}")))?);
        }
        Ok(tokens)
    }
}

fn usage(server: &Server) -> Usage {
    server.pid().and_then(process::usage).unwrap_or_default()
}

/// A hub that runs already.
pub(super) struct Foreign {
    pub(super) url: HubUrl,
}

impl Foreign {
    /// The first address of the client's over which hosts can come.
    pub(super) fn of(client: &Client) -> Result<Self> {
        let url = client.urls().iter().find(|url| url.is_tls()).cloned();
        url.map(|url| Self { url }).ok_or_else(|| {
            Failure::usage("simulated hosts reach a hub over TLS only")
                .hint("name the hub as wss://HOST:PORT, and log in to it before")
        })
    }
}

/// Where a simulation is measured.
#[derive(Debug)]
pub(super) struct Target<'a, 'b> {
    pub(super) client: Client,
    /// Ours, where it is.
    pub(super) hub: Option<&'a mut Own<'b>>,
}

impl Target<'_, '_> {
    /// Where hosts dial.
    pub(super) fn url(&self) -> Result<HubUrl> {
        match &self.hub {
            Some(own) => own.url.clone().ok_or_else(|| Failure::failed("the hub does not run")),
            None => Foreign::of(&self.client).map(|foreign| foreign.url),
        }
    }
}
